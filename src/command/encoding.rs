//! Finds bytes that an editor adds to main.cf besides the text: a byte order mark, line ends of another system; for
//! `--check`.
//!
//! Postfix takes these bytes as text. A NUL byte is left to `config`, which warns of it also in a serving process.

/// U+FEFF in UTF-8, with which some editors begin a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The same in UTF-16.
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// The problems of the bytes of the file `path`, each with its remedy.
pub fn problems(path: &str, bytes: &[u8]) -> Vec<(String, String)> {
    if UTF_16.iter().any(|mark| bytes.starts_with(mark)) {
        let text = format!("{path}: the file is UTF-16, and not ASCII or UTF-8");
        let advice = format!("\"iconv -f UTF-16 -t UTF-8 {path}\" converts it.");
        return vec![(text, advice)];
    }
    let mut problems = Vec::new();
    if bytes.starts_with(BYTE_ORDER_MARK) {
        problems.push((
            format!("{path}, line 1: a byte order mark stands before the text, and is part of its first word"),
            format!("sed -i '1s/^\\xEF\\xBB\\xBF//' {path} removes it."),
        ));
    }
    let ends_in_cr = |line: &&[u8]| line.ends_with(b"\r");
    let lines = || (1..).zip(bytes.split(|&b| b == b'\n'));
    let count = lines().filter(|(_, line)| ends_in_cr(line)).count();
    if let Some((first, _)) = lines().find(|(_, line)| ends_in_cr(line)) {
        let others = match count - 1 {
            0 => String::new(),
            1 => ", and so does 1 other line".to_owned(),
            n => format!(", and so do {n} other lines"),
        };
        problems.push((
            format!("{path}, line {first}: the line ends in a carriage return (CR){others}"),
            format!("sed -i 's/\\r$//' {path} removes them."),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    fn problems(bytes: &[u8]) -> Vec<String> {
        let problems = super::problems("f", bytes).into_iter();
        problems.map(|(text, _)| text).collect()
    }

    #[test]
    fn what_editors_leave_is_named_and_text_is_not() {
        assert_eq!(problems("a = b\n# caf\u{e9}\n".as_bytes()), [""; 0]);
        assert_eq!(problems(b"a = \r b"), [""; 0]);
        let cr = "f, line 2: the line ends in a carriage return (CR)";
        assert_eq!(problems(b"a\nb\r\nc"), [cr]);
        assert_eq!(
            problems(b"a\nb\r\nc\r"),
            [format!("{cr}, and so does 1 other line")]
        );
        let mark =
            "f, line 1: a byte order mark stands before the text, and is part of its first word";
        let both = b"\xef\xbb\xbfa\nb\r\nc\r\nd\r\n";
        assert_eq!(
            problems(both),
            [mark, &format!("{cr}, and so do 2 other lines")]
        );
        assert_eq!(
            problems(b"\xff\xfea\0\r\0\n\0"),
            ["f: the file is UTF-16, and not ASCII or UTF-8"]
        );
    }
}
