//! Writes addresses in the form of message headers.
//!
//! Follows `tests/spec/qmqp.md`, section 11, and RFC 822, section 6.

/// An envelope address in a header: with the local part in quotes if it is no dot-string.
///
/// A source route (`@a,@b:`) and the domain are not changed. The local part ends at the last `@`.
pub fn quote(address: &[u8]) -> Vec<u8> {
    let route = if address.first() == Some(&b'@') {
        address
            .iter()
            .position(|&b| b == b':')
            .map_or(0, |colon| colon + 1)
    } else {
        0
    };
    let (route, rest) = address.split_at_checked(route).unwrap_or((b"", address));
    let end = rest.iter().rposition(|&b| b == b'@').unwrap_or(rest.len());
    let (local, domain) = rest.split_at_checked(end).unwrap_or((rest, b""));
    let mut out = Vec::with_capacity(address.len() + 2);
    out.extend_from_slice(route);
    if is_dot_string(local) {
        out.extend_from_slice(local);
    } else {
        out.push(b'"');
        for &byte in local {
            if matches!(byte, b'"' | b'\\' | b'\r') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.extend_from_slice(domain);
    out
}

fn is_dot_string(local: &[u8]) -> bool {
    local
        .split(|&b| b == b'.')
        .all(|atom| !atom.is_empty() && !atom.iter().any(|&b| is_special(b)))
}

fn is_special(byte: u8) -> bool {
    byte.is_ascii_control() || b" ()<>@,;:\\\"[]".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_specification() {
        for (address, quoted) in [
            ("a b@c", "\"a b\"@c"),
            (".a@c", "\".a\"@c"),
            ("a.@c", "\"a.\"@c"),
            ("a..b@c", "\"a..b\"@c"),
            ("@c", "\"\"@c"),
            ("", "\"\""),
            ("@", "\"\"@"),
            ("a@b@c", "\"a@b\"@c"),
            ("\"q\"@c", "\"\\\"q\\\"\"@c"),
            ("a\\b@c", "\"a\\\\b\"@c"),
            ("@route:user@host", "@route:user@host"),
            ("@route:us er@host", "@route:\"us er\"@host"),
            ("caf\u{e9}@c", "caf\u{e9}@c"),
            ("r@y.example", "r@y.example"),
            ("r", "r"),
            ("a\x7fb@c", "\"a\x7fb\"@c"),
        ] {
            assert_eq!(quote(address.as_bytes()), quoted.as_bytes(), "{address}");
        }
    }
}
