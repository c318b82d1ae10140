//! Attribute lists, string by string.

/// Names and values.
pub type List = Vec<(Vec<u8>, Vec<u8>)>;

/// The list at the start of `bytes`; none where it has no end.
pub fn list(bytes: &[u8]) -> Option<List> {
    let mut rest = bytes;
    let mut list = List::new();
    loop {
        let name = string(&mut rest)?;
        if name.is_empty() {
            return Some(list);
        }
        list.push((name.to_vec(), string(&mut rest)?.to_vec()));
    }
}

/// Takes a string and its NUL off `rest`.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|&b| b == 0)?;
    let string = &rest[..end];
    *rest = &rest[end + 1..];
    Some(string)
}
