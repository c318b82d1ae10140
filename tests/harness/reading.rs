//! What a request is, read once more and with other means than the program's: where it ends, why, and whether
//! Postfix would have gone on. The differences that we want are told apart here, each under its name.

use super::cleanup::QUEUE_ID;
use super::outcome::{Outcome, QUEUE};
use super::requests::Case;

/// A wanted difference from Postfix, and its number in the list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// `tests/spec/differences.md`, 1: the parts must fill the outer netstring exactly.
    OuterLength,
    /// `tests/spec/differences.md`, 2: no CR, LF or NUL in an address.
    LineEndInAddress,
    /// `tests/spec/differences.md`, 3: a connection that is lost where a comma is due is a lost connection.
    LostBeforeComma,
    /// `tests/spec/differences.md`, 10: no queue file before the first byte.
    NoFirstByte,
    /// `tests/spec/differences.md`, 19: message_size_limit is the limit of the envelope too.
    Envelope,
    /// `tests/spec/differences.md`, 20: a length has so many digits at most.
    Digits,
}

/// How a request ends before its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    why: &'static str,
    /// As in "while receiving message content".
    phase: &'static str,
    /// Why Postfix sees it otherwise, if it does.
    pub differs: Option<Difference>,
}

const LOST: &str = "lost connection";
const FORMAT: &str = "netstring format error";
const SIZE: &str = "netstring length exceeds storage limit";
const ADDRESS: &str = "Error: CR, LF or NUL in ";
const ENVELOPE: &str = "Error: envelope too large";

/// The most digits of a length.
const DIGITS: usize = 20;

/// Reads the whole request of `case`, as we want it read.
pub fn read(case: &Case) -> Result<(), Fault> {
    let mut reading = Reading {
        rest: &case.request,
        left: usize::MAX,
        phase: "QMQP packet header",
    };
    if case.request.is_empty() {
        return Err(reading.fault(LOST, Some(Difference::NoFirstByte)));
    }
    reading.left = reading.length(0)?;
    reading.phase = "message content";
    let length = reading.announced(case.message_size_limit)?;
    if case.message_size_limit > 0 && reading.left - length - 1 > case.message_size_limit {
        return Err(reading.fault(ENVELOPE, Some(Difference::Envelope)));
    }
    reading.data(length)?;
    reading.phase = "sender address";
    reading.address(case.line_length_limit)?;
    reading.phase = "recipient address";
    while reading.left > 0 {
        if reading.rest.first() == Some(&b',') {
            // For Postfix the request ends here.
            return Err(reading.fault(FORMAT, Some(Difference::OuterLength)));
        }
        reading.address(case.line_length_limit)?;
    }
    match reading.rest.first() {
        Some(b',') => Ok(()),
        None => Err(reading.fault(LOST, None)),
        // Another recipient may begin here for Postfix; anything else it calls malformed as well.
        Some(b'0'..=b'9' | b':') => Err(reading.fault(FORMAT, Some(Difference::OuterLength))),
        Some(_) => Err(reading.fault(FORMAT, None)),
    }
}

struct Reading<'a> {
    rest: &'a [u8],
    /// Of the outer netstring.
    left: usize,
    phase: &'static str,
}

impl Reading<'_> {
    fn fault(&self, why: &'static str, differs: Option<Difference>) -> Fault {
        Fault {
            why,
            phase: self.phase,
            differs,
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        if self.left == 0 {
            return Err(self.fault(FORMAT, Some(Difference::OuterLength)));
        }
        let (&byte, rest) = self.rest.split_first().ok_or(self.fault(LOST, None))?;
        self.rest = rest;
        self.left -= 1;
        Ok(byte)
    }

    fn length(&mut self, limit: usize) -> Result<usize, Fault> {
        let mut length: i64 = 0;
        for digits in 0.. {
            let byte = self.byte()?;
            let longer = match byte {
                b':' => break,
                b'0'..=b'9' if digits == DIGITS => {
                    return Err(self.fault(FORMAT, Some(Difference::Digits)));
                }
                b'0'..=b'9' => length
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(i64::from(byte - b'0'))),
                _ => return Err(self.fault(FORMAT, None)),
            };
            length = longer.ok_or(self.fault(SIZE, None))?;
        }
        let length = usize::try_from(length).unwrap();
        if limit > 0 && length > limit {
            return Err(self.fault(SIZE, None));
        }
        Ok(length)
    }

    /// A length whose data and comma have room in the outer netstring.
    fn announced(&mut self, limit: usize) -> Result<usize, Fault> {
        let length = self.length(limit)?;
        if length >= self.left {
            return Err(self.fault(FORMAT, Some(Difference::OuterLength)));
        }
        Ok(length)
    }

    fn data(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        let data = self
            .rest
            .get(..length)
            .ok_or(self.fault(LOST, None))?
            .to_vec();
        self.rest = &self.rest[length..];
        self.left -= length;
        if self.rest.is_empty() {
            return Err(self.fault(LOST, Some(Difference::LostBeforeComma)));
        }
        match self.byte()? {
            b',' => Ok(data),
            _ => Err(self.fault(FORMAT, None)),
        }
    }

    fn address(&mut self, limit: usize) -> Result<(), Fault> {
        let length = self.announced(limit)?;
        let address = self.data(length)?;
        if address.iter().any(|byte| b"\r\n\0".contains(byte)) {
            return Err(self.fault(ADDRESS, Some(Difference::LineEndInAddress)));
        }
        Ok(())
    }
}

impl Fault {
    /// What we do about it, given what Postfix does with the same request: which of the records that Postfix sent
    /// before the message we have sent by then is not the point, only that the message is given up.
    pub fn outcome(&self, soft_bounce: bool, postfix: &Outcome) -> Outcome {
        let client = "localhost[127.0.0.1]";
        let id = if self.differs == Some(Difference::NoFirstByte) {
            "NOQUEUE"
        } else {
            QUEUE_ID
        };
        let text = match self.why {
            ADDRESS => format!("{ADDRESS}{}", self.phase),
            ENVELOPE => ENVELOPE.to_owned(),
            _ => format!("{} while receiving {}", self.why, self.phase),
        };
        let mut reply = vec!["<eof>".to_string()];
        if self.why != LOST {
            let status = if soft_bounce { 'Z' } else { 'D' };
            reply.insert(0, format!("{}:{status}{text},", text.len() + 1));
        }
        let level = match self.why {
            ADDRESS | ENVELOPE => "warning: ",
            _ => "",
        };
        let mut log = vec![format!("connect from {client}")];
        let mut queue = Vec::new();
        if id == QUEUE_ID {
            log.push(format!("{id}: client={client}"));
            queue = postfix[QUEUE]
                .iter()
                .take_while(|line| *line != "M" && *line != "<eof>")
                .cloned()
                .collect();
            queue.push("<eof>".into());
        }
        log.push(format!("{level}{id}: {client}: {text}"));
        log.push(format!("disconnect from {client}"));
        [reply, queue, log, Vec::new()]
    }
}
