//! Text files: lines that go on in the next, and rules between `if` and `endif`.

/// isspace(3) of the C locale.
pub fn is_space(byte: u8) -> bool {
    b" \t\n\x0b\x0c\r".contains(&byte)
}

pub fn trim(mut text: &[u8]) -> &[u8] {
    while text.first().is_some_and(|&b| is_space(b)) {
        text = &text[1..];
    }
    while text.last().is_some_and(|&b| is_space(b)) {
        text = &text[..text.len() - 1];
    }
    text
}

/// The logical lines of a file.
pub fn logical(file: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in file.split(|&b| b == b'\n') {
        match trim(line).first() {
            None | Some(b'#') => continue,
            Some(_) => {}
        }
        match lines.last_mut() {
            Some(last) if is_space(line[0]) => last.extend_from_slice(line),
            _ => lines.push(line.to_vec()),
        }
    }
    lines
}

/// The lines of a table: up to a NUL, and without a first one that has nothing to continue.
pub fn of_table(file: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = logical(file);
    for line in &mut lines {
        *line = line.split(|&b| b == 0).next().unwrap().to_vec();
    }
    lines.retain(|line| line.is_empty() || !is_space(line[0]));
    lines
}

/// A line's first word of letters and digits, in lower case, and what follows.
pub fn word(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut end = 0;
    while end < line.len() && line[end].is_ascii_alphanumeric() {
        end += 1;
    }
    (line[..end].to_ascii_lowercase(), &line[end..])
}

/// Takes blanks and `!` signs off a text, and says whether the number of the signs is odd.
pub fn sign(text: &[u8]) -> (bool, &[u8]) {
    let mut negated = false;
    let mut rest = text;
    while let Some(&first) = rest.first() {
        match first {
            b'!' => negated = !negated,
            _ if is_space(first) => {}
            _ => break,
        }
        rest = &rest[1..];
    }
    (negated, rest)
}
