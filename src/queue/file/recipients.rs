//! Completes the envelope addresses for a queue file, and drops repeated recipients.
//!
//! Unlike Postfix's cleanup, no address is rewritten: no `%` hack, no routes, no maps; only a missing domain is added
//! (`tests/spec/differences.md`, 30). Follows `tests/spec/queue-file.md`, sections 3 and 7.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

/// What main.cf sets for addresses.
#[derive(Debug)]
pub struct AddressSettings {
    pub myorigin: String,
    /// Whether a missing domain is added.
    pub append_at_myorigin: bool,
    pub empty_address_recipient: String,
    pub enable_original_recipient: bool,
    /// The number of recipients that are remembered; 0 is no limit.
    pub duplicate_filter_limit: usize,
}

/// This sender, with `$myorigin` added, is stored as the null sender, as cleanup(8) does.
const MAILER_DAEMON: &[u8] = b"MAILER-DAEMON";

impl AddressSettings {
    /// The sender for the queue file. As in Postfix, only the complete address of MAILER-DAEMON becomes the null
    /// sender.
    pub fn sender(&self, sender: &[u8]) -> Vec<u8> {
        let complete = self.complete(sender);
        let bounces = self.complete(MAILER_DAEMON);
        if self.append_at_myorigin && complete.eq_ignore_ascii_case(&bounces) {
            return Vec::new();
        }
        complete
    }

    /// The recipient for the queue file.
    pub fn recipient(&self, recipient: &[u8]) -> Vec<u8> {
        if recipient.is_empty() {
            return self.complete(self.empty_address_recipient.as_bytes());
        }
        self.complete(recipient)
    }

    /// Adds `$myorigin` to an address without a domain, if append_at_myorigin is set.
    fn complete(&self, address: &[u8]) -> Vec<u8> {
        let mut address = address.to_vec();
        if self.append_at_myorigin && !address.is_empty() && !address.contains(&b'@') {
            address.push(b'@');
            address.extend_from_slice(self.myorigin.as_bytes());
        }
        address
    }
}

/// The recipients so far.
#[derive(Debug, Default)]
pub struct Seen {
    known: BTreeSet<Key>,
    key: Key,
}

/// A recipient's key, after its hash. The hash alone almost always decides a comparison.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64, Vec<u8>);

impl Seen {
    /// Whether a recipient with this `original` form and `kind` is new, in upper or lower case. Beyond the limit new
    /// recipients are not remembered.
    pub fn is_new(
        &mut self,
        settings: &AddressSettings,
        (kind, original): (&[u8], &[u8]),
        recipient: &[u8],
    ) -> bool {
        let Key(hash, key) = &mut self.key;
        key.clear();
        if settings.enable_original_recipient {
            // The recipient follows from its original form, so that this is enough.
            key.extend_from_slice(kind);
            key.extend_from_slice(original);
        } else {
            key.extend_from_slice(recipient);
        }
        key.make_ascii_lowercase();
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        *hash = hasher.finish();
        if self.known.contains(&self.key) {
            return false;
        }
        let limit = settings.duplicate_filter_limit;
        if limit == 0 || self.known.len() < limit {
            self.known.insert(self.key.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(enable_original_recipient: bool, duplicate_filter_limit: usize) -> AddressSettings {
        AddressSettings {
            myorigin: "spec.example".to_owned(),
            append_at_myorigin: true,
            empty_address_recipient: "MAILER-DAEMON".to_owned(),
            enable_original_recipient,
            duplicate_filter_limit,
        }
    }

    /// The recipients that remain, without `$myorigin`.
    fn kept(settings: &AddressSettings, recipients: &[&str]) -> String {
        let mut seen = Seen::default();
        let kept: Vec<&str> = recipients
            .iter()
            .copied()
            .filter(|original| {
                let recipient = settings.recipient(original.as_bytes());
                seen.is_new(settings, (b"rfc822;", original.as_bytes()), &recipient)
            })
            .collect();
        kept.join(" ")
    }

    #[test]
    fn a_missing_domain_is_added_and_nothing_else_changes() {
        let settings = settings(true, 9);
        for (address, recipient) in [
            ("root", "root@spec.example"),
            ("", "MAILER-DAEMON@spec.example"),
            ("a%b", "a%b@spec.example"),
            ("@a:b@c", "@a:b@c"),
            ("x@", "x@"),
        ] {
            assert_eq!(
                settings.recipient(address.as_bytes()),
                recipient.as_bytes(),
                "{address}"
            );
        }
    }

    #[test]
    fn bounces_have_no_sender() {
        let settings = settings(true, 9);
        for (address, sender) in [
            ("", ""),
            ("mailer-daemon", ""),
            ("MAILER-DAEMON@Spec.example", ""),
            ("MAILER-DAEMON@x.example", "MAILER-DAEMON@x.example"),
            ("s", "s@spec.example"),
        ] {
            assert_eq!(
                settings.sender(address.as_bytes()),
                sender.as_bytes(),
                "{address}"
            );
        }
    }

    #[test]
    fn without_a_domain_of_ours_nothing_is_added_and_no_sender_is_a_bounce() {
        let mut settings = settings(true, 9);
        settings.append_at_myorigin = false;
        assert_eq!(settings.recipient(b"root"), b"root");
        assert_eq!(settings.recipient(b""), b"MAILER-DAEMON");
        for sender in ["", "s", "MAILER-DAEMON", "MAILER-DAEMON@spec.example"] {
            assert_eq!(settings.sender(sender.as_bytes()), sender.as_bytes());
        }
    }

    #[test]
    fn a_recipient_counts_once_in_upper_and_lower_case() {
        let recipients = ["r@y.example", "R@Y.example", "a@b", "r@y.example"];
        assert_eq!(kept(&settings(true, 9), &recipients), "r@y.example a@b");
    }

    #[test]
    fn recipients_are_the_same_only_if_they_were_written_the_same() {
        let recipients = ["root", "root@spec.example", "", "MAILER-DAEMON"];
        assert_eq!(kept(&settings(true, 9), &recipients), recipients.join(" "));
        assert_eq!(kept(&settings(false, 9), &recipients), "root ");
    }

    #[test]
    fn past_the_limit_only_the_first_recipients_are_compared() {
        let recipients = ["a@b", "b@b", "c@b", "a@b", "c@b"];
        assert_eq!(kept(&settings(true, 2), &recipients), "a@b b@b c@b c@b");
        assert_eq!(kept(&settings(true, 3), &recipients), "a@b b@b c@b");
        assert_eq!(kept(&settings(true, 0), &recipients), "a@b b@b c@b");
    }
}
