"""Small tables in the formats that users bring, and what is in them."""

import gzip

COLUMNS = ("text", "label")
CONTENT = {
    "rows.csv": 'id,label,text\r\n1,a,"two\nlines, and a comma"\r\n\r\n2,b,"a ""quote"""\r\n',
    "rows.tsv": 'label\ttext\na\t"no quoting"\nb\tGrüße\n',
    "rows.jsonl": '{"label": "a", "text": "one\\ntwo"}\n\n{"text": "Grüße\u2028", "label": "b", "more": [1]}\n',
}
VALUES = {
    "rows.csv": [("two\nlines, and a comma", "a"), ('a "quote"', "b")],
    "rows.tsv": [('"no quoting"', "a"), ("Grüße", "b")],
    "rows.jsonl": [("one\ntwo", "a"), ("Grüße\u2028", "b")],
}


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
