//! `texthash:` tables: what a file has for a key, against line by line.

use crate::lookup::in_memory::InMemory;

use super::input::Input;
use super::obvious::lines::{is_space, of_table, trim};
use super::surroundings::with_log;

/// smtputf8_enable, a key with its length, then the file.
pub fn texthash(data: &[u8]) {
    let mut input = Input(data);
    let utf8 = !input.bit();
    let other = input.data().to_vec();
    let (searched, kept) = (
        InMemory::texthash(input.0, utf8),
        InMemory::texthash(input.0, utf8),
    );
    with_log(|| kept.take_snapshot());
    let entries = entries(input.0, utf8);
    let has_twice = |key: &[u8]| entries.iter().filter(|(own, _)| own == key).count() > 1;
    let is_table = !entries.iter().any(|(key, _)| has_twice(key));
    let keys = entries.iter().map(|(key, _)| key).chain([&other]);
    for key in keys.filter_map(|key| std::str::from_utf8(key).ok()) {
        let entry = entries.iter().find(|(own, _)| own == key.as_bytes());
        let value = entry.map(|(_, value)| value.clone());
        let found = with_log(|| kept.find(key)).ok();
        assert_eq!(found, is_table.then(|| value.clone()));
        let found = with_log(|| searched.find(key)).ok();
        assert_eq!(found, (!has_twice(key.as_bytes())).then_some(value));
        // What is behind a dot, as if it were a domain that the client is in.
        let name = format!("b{key}");
        let is_for = |own: &[u8]| {
            own == name.as_bytes() || own == b"a" || {
                let below = name.as_bytes().strip_suffix(own);
                below.is_some_and(|below| own[0] == b'.' || below.last() == Some(&b'.'))
            }
        };
        let is_refused = entries.iter().any(|(own, _)| is_for(own) && has_twice(own));
        for asked in [&*name, "a"] {
            let entry = entries.iter().find(|(own, _)| own == asked.as_bytes());
            let value = entry.map(|(_, value)| value.clone());
            let found = with_log(|| searched.find_of(Some(&name), Some("a"), asked)).ok();
            assert_eq!(found, (!is_refused).then_some(value));
        }
    }
}

/// Keys and values, in their order.
fn entries(file: &[u8], utf8: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in of_table(file) {
        let Some((own, value)) = entry(&line) else {
            continue;
        };
        if utf8 && String::from_utf8(line).is_err() {
            continue;
        }
        entries.push((own, value));
    }
    entries
}

/// A key goes to the first blank that is neither quoted nor after a backslash.
fn entry(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut quoted = false;
    let mut at = 0;
    while at < line.len() && (quoted || !is_space(line[at])) {
        match line[at] {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            _ => {}
        }
        at += 1;
    }
    if quoted || at == 0 || at >= line.len() || trim(&line[at..]).is_empty() {
        return None;
    }
    Some((line[..at].to_vec(), trim(&line[at..]).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;

    #[test]
    fn texthash_tables_are_read_as_line_by_line() {
        random::run("texthash", texthash, |random| {
            let key = random.text(2, &["a", "b", "\"a b\"", "\\ "]);
            let mut input = vec![random.byte(), u8::try_from(key.len()).unwrap(), 0];
            input.extend(&key);
            let pieces = [
                "a", "b", ".", " ", "\t", "\n", "\"", "\\", "#", "\0", "\u{e9}", "\x0b", "a b\n",
                ".a b\n", "b a\n",
            ];
            input.extend(random.text(20, &pieces));
            random.damage(&mut input);
            input
        });
    }
}
