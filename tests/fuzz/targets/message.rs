//! A message for a queue, out of the bytes of a fuzzer.

use crate::queue::{Committed, Queue};
use crate::wire::verp::{self, Sender};

use super::input::Input;

/// What a client has sent.
#[derive(Debug)]
pub struct Message {
    pub content: Vec<u8>,
    pub sender: Sender,
    pub recipients: Vec<Vec<u8>>,
    /// How many bytes of the content come at a time.
    step: usize,
}

impl Message {
    pub fn read(input: &mut Input<'_>) -> Message {
        let step = usize::from(input.byte()).max(1);
        let sender = verp::split(&address(input));
        let recipients = (0..input.byte() % 8).map(|_| address(input)).collect();
        Message {
            content: input.0.to_vec(),
            sender,
            recipients,
            step,
        }
    }

    /// Hands it over.
    pub fn commit(&self, mut queue: Box<dyn Queue + '_>) -> Committed {
        for piece in self.content.chunks(self.step) {
            queue.content(piece.to_vec());
        }
        queue.sender(&self.sender);
        for recipient in &self.recipients {
            queue.recipient(recipient);
        }
        queue.commit()
    }
}

/// The reader of requests lets no other addresses through.
fn address(input: &mut Input<'_>) -> Vec<u8> {
    let mut address = input.data().to_vec();
    address.retain(|b| !b"\r\n\0".contains(b));
    address
}

#[cfg(test)]
pub fn sample(random: &mut super::random::Random) -> Vec<u8> {
    let mut input = vec![random.byte()];
    let count = random.byte() % 5;
    for i in 0..=count {
        let pieces = [
            "list",
            "-",
            "@",
            "x.example",
            "-@[]",
            "\"",
            "\u{e9}",
            "MAILER-DAEMON",
            "R",
            "r",
        ];
        let address = random.text(5, &pieces);
        input.extend(u16::try_from(address.len()).unwrap().to_le_bytes());
        input.extend(address);
        if i == 0 {
            input.push(count);
        }
    }
    let lines = [
        "From x\n",
        ">From y\0z\n",
        " folded\n",
        "\n",
        "Subject: s\n",
        "Received: r\n",
        "Bcc : b\n",
        "Date:\n",
        "body",
        "\r",
        "Resent-To: x\n",
        "Content-Transfer-Encoding: 8bit\n",
        "caf\u{e9}\n",
        ".",
        "Message-Id: <x>\n",
        "\0",
        ":\n",
    ];
    input.extend(random.text(12, &lines));
    if random.below(8) == 0 {
        input.extend(b"Message-Id:\n".repeat(random.below(40)));
    }
    if random.below(8) == 0 {
        input.extend(b"x".repeat(random.below(1200)));
    }
    input.extend(random.text(3, &lines));
    input
}
