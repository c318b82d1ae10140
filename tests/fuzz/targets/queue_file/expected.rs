//! What the envelope of a queue file has to be.

use crate::fuzzing::message::Message;
use crate::fuzzing::obvious::content::Record;

use super::Choices;

pub struct Expected {
    /// The records between the first one and the content, but for those of the client.
    pub envelope: Vec<Record>,
    pub recipients: usize,
}

impl Expected {
    pub fn of(message: &Message, choices: Choices) -> Expected {
        let sender = match complete(&message.sender.address) {
            sender if sender.eq_ignore_ascii_case(b"MAILER-DAEMON@example") => Vec::new(),
            sender => sender,
        };
        let mut envelope = vec![
            (b'T', b"1700000000 7".to_vec()),
            (b'A', b"create_time=1700000000".to_vec()),
            (b'S', sender.clone()),
        ];
        if let Some(delimiters) = message.sender.verp.filter(|_| !sender.is_empty()) {
            envelope.push((b'V', delimiters.to_vec()));
        }
        envelope.push((b'A', b"protocol_name=QMQP".to_vec()));
        let warned = choices.delay_warning_time && !sender.is_empty();
        if warned && !message.recipients.is_empty() {
            envelope.push((b'W', b"     1700003600".to_vec()));
        }
        let recipients = recipients(message, &sender, choices);
        for [original, kind, recipient] in &recipients {
            envelope.push((
                b'A',
                [b"dsn_orig_rcpt=", kind.as_slice(), recipient].concat(),
            ));
            envelope.push((b'O', original.clone()));
            envelope.push((b'R', recipient.clone()));
        }
        envelope.push((b'M', Vec::new()));
        Expected {
            envelope,
            recipients: recipients.len(),
        }
    }
}

/// As they were written, of which kind, and as they are; each once.
fn recipients(message: &Message, sender: &[u8], choices: Choices) -> Vec<[Vec<u8>; 3]> {
    let mut known = Vec::new();
    let mut recipients = Vec::new();
    let mut utf8_so_far = is_utf8(sender);
    for original in &message.recipients {
        let recipient = match original.as_slice() {
            b"" => b"MAILER-DAEMON@example".to_vec(),
            original => complete(original),
        };
        utf8_so_far |= is_utf8(&recipient);
        let kind: &[u8] = if choices.smtputf8 && utf8_so_far && !recipient.is_ascii() {
            b"utf-8;"
        } else {
            b"rfc822;"
        };
        let mut key = [original.clone(), kind.to_vec(), recipient.clone()]
            .map(|part| part.to_ascii_lowercase());
        if !choices.enable_original_recipient {
            key = [Vec::new(), Vec::new(), key[2].clone()];
        }
        if known.contains(&key) {
            continue;
        }
        if !choices.small_duplicate_filter || known.len() < 2 {
            known.push(key);
        }
        recipients.push([original.clone(), kind.to_vec(), recipient]);
    }
    recipients
}

/// Beyond ASCII.
fn is_utf8(address: &[u8]) -> bool {
    !address.is_ascii() && String::from_utf8(address.to_vec()).is_ok()
}

fn complete(address: &[u8]) -> Vec<u8> {
    if address.is_empty() || address.contains(&b'@') {
        return address.to_vec();
    }
    [address, b"@example"].concat()
}
