//! The records of a message's content, byte by byte; and where in them the body begins.

/// A record's type and data.
pub type Record = (u8, Vec<u8>);

/// The lines of `content` as records of up to `limit` bytes, with what becomes of those of a mailbox.
pub fn records(content: &[u8], limit: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at_top = true;
    for (kind, line) in pieces(content, limit) {
        let unquoted = line.iter().skip_while(|&&b| b == b'>');
        if at_top && unquoted.copied().take(5).eq(*b"From ") {
            let text = line.split(|&b| b == 0).next().unwrap();
            records.push((kind, [b"X-Mailbox-Line: ", text].concat()));
            continue;
        }
        if at_top && (line.starts_with(b" ") || line.starts_with(b"\t")) {
            records.push((b'N', Vec::new()));
        }
        at_top = false;
        records.push((kind, line));
    }
    records
}

fn pieces(content: &[u8], limit: usize) -> Vec<Record> {
    let mut pieces = Vec::new();
    let mut line = Vec::new();
    for &byte in content {
        if byte == b'\n' {
            pieces.push((b'N', std::mem::take(&mut line)));
            continue;
        }
        if line.len() == limit {
            pieces.push((b'L', std::mem::take(&mut line)));
        }
        line.push(byte);
    }
    if !line.is_empty() {
        pieces.push((b'L', line));
    }
    pieces
}

/// The records of the body of a message with headers in front of it that end in a whole line.
pub fn body(records: &[Record]) -> &[Record] {
    let mut goes_on = false;
    for (at, (kind, data)) in records.iter().enumerate() {
        let is_folded = data.starts_with(b" ") || data.starts_with(b"\t");
        if !goes_on && !is_folded && !is_header(data) {
            return &records[at..];
        }
        goes_on = *kind == b'L';
    }
    &[]
}

/// `name:`, with blanks between the two or without.
fn is_header(line: &[u8]) -> bool {
    let name = line.split(|&b| b == b':').next().unwrap();
    let mut name = name.to_vec();
    while name.ends_with(b" ") || name.ends_with(b"\t") {
        name.pop();
    }
    line.contains(&b':') && !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}
