//! `regexp:` tables: our own reading of lines, patterns, flags and values. What the C library makes of a pattern is its
//! business; a pattern of letters and digits alone matches where it is found.

use crate::lookup::in_memory::{InMemory, split_regexp};

use super::obvious::lines::{is_space, of_table, sign, trim, word};
use super::surroundings::with_log;

const KEYS: &[&str] = &["", "a", "b", "ab", "client", "192"];

/// The file.
pub fn regexp(file: &[u8]) {
    let mut are_plain = true;
    for line in of_table(file) {
        let line = trim(&line);
        let (word, rest) = word(line);
        let text = if word == b"if" { trim(rest) } else { line };
        are_plain &= check_line(text);
    }
    let (searched, kept) = (InMemory::regexp(file), InMemory::regexp(file));
    with_log(|| kept.take_snapshot());
    for table in [searched, kept].iter().filter(|_| are_plain) {
        for (key, next) in KEYS.iter().zip(KEYS.iter().cycle().skip(1)) {
            let found = with_log(|| table.find(key));
            assert_eq!(found, Ok(find(file, key)), "{key}");
            for asked in [next, key] {
                let found = with_log(|| table.find_of(Some(key), Some(next), asked));
                assert_eq!(found, Ok(find(file, asked)), "{asked}");
            }
        }
    }
}

/// Holds a line's parts against those that are found here. Whether the C library will have no work with them.
fn check_line(text: &[u8]) -> bool {
    let found = split_regexp(text);
    let mut rest = text;
    let mut patterns = Vec::new();
    loop {
        let Some(pattern) = Pattern::split(&mut rest) else {
            assert!(found.is_err(), "{found:?}");
            // A condition has only one, whatever follows it.
            return patterns.iter().all(Pattern::is_plain);
        };
        patterns.push(pattern);
        if patterns.len() == 2 || !rest.starts_with(b"!") {
            break;
        }
    }
    let (sources, value, highest) = found.unwrap();
    let own: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.source).collect();
    let their: Vec<&[u8]> = sources.iter().map(|(source, _)| *source).collect();
    assert_eq!((own, trim(rest)), (their, value));
    for (source, groups) in &sources {
        assert!(*groups <= source.iter().filter(|&&b| b == b'(').count());
    }
    if !value.contains(&b'$') {
        assert_eq!(highest, Some(0));
    }
    patterns.iter().all(Pattern::is_plain) && !value.contains(&b'$')
}

struct Pattern<'a> {
    negated: bool,
    source: &'a [u8],
    ignore_case: bool,
}

impl<'a> Pattern<'a> {
    fn split(rest: &mut &'a [u8]) -> Option<Pattern<'a>> {
        let (negated, text) = sign(rest);
        let mut end = 1;
        while *text.get(end)? != text[0] {
            end += if text[end] == b'\\' { 2 } else { 1 };
        }
        let mut after = end + 1;
        let mut ignore_case = true;
        while after < text.len() && text[after] != b'!' && !is_space(text[after]) {
            match text[after] {
                b'i' => ignore_case = !ignore_case,
                b'm' | b'x' => {}
                _ => return None,
            }
            after += 1;
        }
        *rest = &text[after..];
        Some(Pattern {
            negated,
            source: &text[1..end],
            ignore_case,
        })
    }

    fn is_plain(&self) -> bool {
        self.source.iter().all(u8::is_ascii_alphanumeric)
    }

    fn holds(&self, key: &str) -> bool {
        let mut source = self.source.to_vec();
        if self.ignore_case {
            source.make_ascii_lowercase();
        }
        let is_found = source.is_empty()
            || key
                .as_bytes()
                .windows(source.len())
                .any(|part| part == source);
        is_found != self.negated
    }
}

fn find(file: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut conditions = Vec::new();
    for line in of_table(file) {
        let line = trim(&line);
        match word(line) {
            (word, _) if word == b"endif" => drop(conditions.pop()),
            (word, rest) if word == b"if" => {
                let condition = Pattern::split(&mut trim(rest));
                conditions.extend(condition.map(|pattern| pattern.holds(key)));
            }
            (word, rest) if word.is_empty() => {
                let value = value(rest, key);
                if value.is_some() && !conditions.contains(&false) {
                    return value;
                }
            }
            _ => {}
        }
    }
    None
}

/// A rule's value, where the rule is one and the key fulfils it.
fn value(line: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut rest = line;
    let first = Pattern::split(&mut rest)?;
    let mut holds = first.holds(key);
    if rest.starts_with(b"!") {
        holds &= Pattern::split(&mut rest)?.holds(key);
    }
    holds.then(|| trim(rest).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;

    #[test]
    fn regexp_tables_are_read_as_rule_by_rule() {
        random::run("regexp", regexp, |random| {
            const STARTS: &[&str] = &["", "", "if ", "IF", "endif ", "!", " ! !", "x", "#", "\\"];
            const PATTERNS: &[&str] = &[
                "/a/",
                "/b/",
                "|ab|",
                "/A/",
                "//",
                "/[(]/",
                "/(a)\\(/",
                "/a\\\\/",
                "/\\//",
                "a/",
                "/a",
                "/b/!/a/",
                "/b/! /b/!",
            ];
            const ENDS: &[&str] = &[" value", " $1", " ", "\tvalue $$", "\0"];
            let mut file = Vec::new();
            for _ in 0..random.below(6) {
                file.extend(random.text(1, STARTS));
                file.extend(random.text(1, PATTERNS));
                file.extend(random.text(2, &["", "i", "m", "x", "ii"]));
                file.extend(random.text(1, ENDS));
                file.push(b'\n');
            }
            random.damage(&mut file);
            file
        });
    }
}
