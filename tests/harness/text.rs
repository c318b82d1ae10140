//! Bytes as they are written in a dialogue file.
//!
//! Printable ASCII stands for itself; `\n`, `\r`, `\t`, `\0`, `\\`, `\{`, `\}` and `\xNN` for what they usually mean;
//! `{TEXT*N}` is TEXT, N times. A blank at the end of a line is written `\x20`, so that it can be seen.

/// A run of one byte that is at least this long is shown as `{a*N}`.
const RUN: usize = 16;

/// A row of one piece that is at least this long in all is shown as `{ab*N}`.
const ROW: usize = 64;

/// The longest piece that is looked for.
const LONGEST_PIECE: usize = 16;

/// The bytes that `text` stands for.
pub fn read(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b'\\' => read_escape(after, &mut bytes)?,
            b'{' => read_repeat(after, &mut bytes)?,
            b'}' => return Err(format!("'}}' without '{{' in {text:?}")),
            _ => {
                bytes.push(first);
                after
            }
        };
    }
    Ok(bytes)
}

fn read_escape<'a>(rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let (&letter, after) = rest.split_first().ok_or("'\\' at the end of a line")?;
    bytes.push(match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'\\' | b'{' | b'}' => letter,
        b'x' => {
            let digits = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let value = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(value.ok_or("'\\x' needs two hexadecimal digits")?);
            return Ok(&after[2..]);
        }
        _ => return Err(format!("unknown escape '\\{}'", char::from(letter))),
    });
    Ok(after)
}

fn read_repeat<'a>(rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let mut end = 0;
    while *rest.get(end).ok_or("'{' without '}'")? != b'}' {
        end += if rest[end] == b'\\' { 2 } else { 1 };
    }
    let inside = std::str::from_utf8(&rest[..end]).map_err(|error| error.to_string())?;
    let (piece, times) = inside
        .rsplit_once('*')
        .ok_or("a repeat is written {TEXT*N}")?;
    let times = times
        .parse()
        .map_err(|error| format!("{times:?} times: {error}"))?;
    bytes.extend(read(piece)?.repeat(times));
    Ok(&rest[end + 1..])
}

/// `bytes` as a dialogue file has them; [`read`] turns the text back into the same bytes.
pub fn show(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let Some((piece, times)) = repeat_at_start(rest) else {
            text.push_str(&show_byte(first));
            rest = after;
            continue;
        };
        let shown: String = piece.iter().map(|&byte| show_byte(byte)).collect();
        text.push_str(&format!("{{{shown}*{times}}}"));
        rest = &rest[piece.len() * times..];
    }
    if text.ends_with(' ') {
        text.pop();
        text.push_str("\\x20");
    }
    text
}

/// The shortest piece that `bytes` begins with so often that it is worth a `{TEXT*N}`.
fn repeat_at_start(bytes: &[u8]) -> Option<(&[u8], usize)> {
    (1..=LONGEST_PIECE).find_map(|length| {
        let piece = bytes.get(..length)?;
        let times = bytes
            .chunks_exact(length)
            .take_while(|chunk| *chunk == piece)
            .count();
        let worth = if length == 1 { RUN } else { ROW };
        (times > 1 && times * length >= worth).then_some((piece, times))
    })
}

fn show_byte(byte: u8) -> String {
    match byte {
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b'\t' => "\\t".into(),
        0 => "\\0".into(),
        b'\\' | b'{' | b'}' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).into(),
        _ => format!("\\x{byte:02x}"),
    }
}
