"""Small text tables: what the helpers print."""


def format_table(header: list[str], rows: list[list], *, left: tuple[int, ...] = (0,)) -> str:
    """Header and rows as aligned text: the columns `left` to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    aligned = [
        [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)
