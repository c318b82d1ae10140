//! Reads the request for VERP, one sender for each recipient, that qmail's clients put into a sender: `list-@host-@[]`.
//!
//! Follows `tests/spec/qmqp.md`, section 10. Whether the delimiters are allowed is left to `session`.

/// The second delimiter: the protocol cannot ask for another one.
const SECOND_DELIMITER: u8 = b'=';

/// A sender for the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pub address: Vec<u8>,
    /// The two delimiters, if VERP is asked for.
    pub verp: Option<[u8; 2]>,
}

impl Sender {
    /// The sender as the client wrote it, with the request.
    pub fn wire(&self) -> Vec<u8> {
        let Some([delimiter, _]) = self.verp else {
            return self.address.clone();
        };
        let at = self.address.iter().position(|&b| b == b'@');
        let (prefix, origin) = self
            .address
            .split_at_checked(at.unwrap_or(self.address.len()))
            .unwrap_or_default();
        [prefix, &[delimiter], origin, b"-@[]"].concat()
    }
}

/// Splits the request from a sender, if there is one.
///
/// The first `@` decides: the byte before it is the first delimiter, and the text after it must end in `-@[]`.
pub fn split(sender: &[u8]) -> Sender {
    let plain = || Sender {
        address: sender.to_vec(),
        verp: None,
    };
    let Some(at) = sender.iter().position(|&b| b == b'@') else {
        return plain();
    };
    let (Some((local, domain)), Some(origin)) =
        (sender.split_at_checked(at), sender.strip_suffix(b"-@[]"))
    else {
        return plain();
    };
    let Some((&delimiter, prefix)) = local.split_last() else {
        return plain();
    };
    // The first @ must be before the suffix, with an origin between them.
    if prefix.is_empty() || origin.len() <= at + 1 || domain.is_empty() {
        return plain();
    }
    let mut address = prefix.to_vec();
    address.extend_from_slice(origin.get(at..).unwrap_or_default());
    Sender {
        address,
        verp: Some([delimiter, SECOND_DELIMITER]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_of_the_specification() {
        for (wire, address, verp) in [
            (
                "list-return-17-@lists.example.org-@[]",
                "list-return-17@lists.example.org",
                Some("-="),
            ),
            ("list+@x.example-@[]", "list@x.example", Some("+=")),
            ("a-@b@x.example-@[]", "a@b@x.example", Some("-=")),
            ("listx@x.example-@[]", "list@x.example", Some("x=")),
            ("-@x.example-@[]", "-@x.example-@[]", None),
            ("list-@-@[]", "list-@-@[]", None),
            ("-@[]", "-@[]", None),
            ("#@[]", "#@[]", None),
            ("", "", None),
            ("s@x.example", "s@x.example", None),
            ("list-@x.example-@[", "list-@x.example-@[", None),
        ] {
            let sender = split(wire.as_bytes());
            assert_eq!(sender.wire(), wire.as_bytes());
            assert_eq!(sender.address, address.as_bytes(), "{wire}");
            assert_eq!(
                sender.verp.as_ref().map(<[u8; 2]>::as_slice),
                verp.map(str::as_bytes),
                "{wire}"
            );
        }
    }
}
