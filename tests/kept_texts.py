"""What SQL keeps, looked through for characters that nobody can see, or that turn text around."""

from sqlalchemy import inspect, text

from infra.database import Database
from models.text import cleaned


async def unclean_texts(database: Database) -> list[tuple[str, str]]:
    """Return each text of any table that would be kept otherwise if somebody wrote it now, with its column."""
    async with database.read() as session:
        connection = await session.connection()
        columns = await connection.run_sync(
            lambda on: [
                (table, column["name"])
                for table in inspect(on).get_table_names()
                for column in inspect(on).get_columns(table)
            ]
        )
        found = []
        for table, column in columns:
            for (value,) in await connection.execute(text(f'SELECT "{column}" FROM "{table}"')):
                # JSON escapes what it carries; what it shows is kept elsewhere, too.
                if isinstance(value, str) and not value.startswith(("{", "[")) and not _is_clean(value):
                    found.append((f"{table}.{column}", value))
        return found


def _is_clean(value: str) -> bool:
    return cleaned(value, keeps_lines=True) == value
