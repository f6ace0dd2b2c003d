"""Small text tables: what the helpers print."""


def format_table(header: list[str], rows: list[list]) -> str:
    """Header and rows as aligned text: first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [[row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))] for row in cells]
    return "\n".join("  ".join(line).rstrip() for line in lines)
