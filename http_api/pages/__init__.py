"""What a browser opens: the pages, their files, and the published documents.

serving.py      the routes       browser/        the files, as the browser runs them; no build step
"""
