"""What a browser opens: the pages, their files, and the published documents.

serving.py      the routes       browser/        the files, as the browser runs them; no build step
kept.py         what the app's worker keeps for when there is no connection
icons.py        draws browser/icons/, the app's icons
wire_js.py      writes clients/javascript/wire.js, the types of what travels, from the server's own
"""
