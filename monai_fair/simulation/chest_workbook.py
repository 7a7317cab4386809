"""A spreadsheet of text and whole numbers with the same bytes each time, for tables that come as .xlsx."""

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd

from monai_fair.data.artifacts import atomic_path

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_KIND}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_KIND}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">'
    '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}
_SHEET = "xl/worksheets/sheet1.xml"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows: the day of writing would change the bytes


def write_workbook(path: str | Path, table: pd.DataFrame) -> Path:
    """Write ``table`` as a workbook of one sheet whose first row is the header.

    Args:
        path: the file to write.
        table: at most 26 columns of text or of whole numbers; empty text is no cell at all.

    References:
        ECMA-376, Office Open XML file formats, part 1 (SpreadsheetML).
    """
    rows = [list(table.columns), *table.astype(object).to_numpy().tolist()]
    body = "".join(_row(number, row) for number, row in enumerate(rows, start=1))
    parts = {**_PARTS, _SHEET: f'<worksheet xmlns="{_MAIN}"><sheetData>{body}</sheetData></worksheet>'}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), _HEAD + text, zipfile.ZIP_DEFLATED)
    return Path(path)


def _row(number: int, values: list[str | int]) -> str:
    cells = "".join(_cell(f"{chr(ord('A') + column)}{number}", value) for column, value in enumerate(values))
    return f'<row r="{number}">{cells}</row>'


def _cell(place: str, value: str | int) -> str:
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>' if value else ""
    return f'<c r="{place}"><v>{value}</v></c>'
