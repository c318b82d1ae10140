//! A QMQP request, read the obvious way: with all of its bytes at hand, one after the other.

use crate::wire::qmqp::Limits;

/// The parts of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    pub content: Vec<u8>,
    pub sender: Vec<u8>,
    pub recipients: Vec<Vec<u8>>,
}

/// What is wrong with a request, in the words of the log.
type Complaint = &'static str;

const FORMAT: Complaint = "netstring format error";
const SIZE: Complaint = "netstring length exceeds storage limit";
const LOST: Complaint = "lost connection";
pub const ADDRESS: Complaint = "CR, LF or NUL";
pub const ENVELOPE: Complaint = "envelope too large";

/// The most digits of a length.
const DIGITS: usize = 20;

const HEADER: &str = "receiving QMQP packet header";
const CONTENT: &str = "receiving message content";
const SENDER: &str = "receiving sender address";
const RECIPIENT: &str = "receiving recipient address";

/// Reads a request, or says what is wrong with it and while what was being received.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Parts, String> {
    let Limits {
        message,
        envelope: most,
        address,
    } = limits;
    let during = |phase| move |complaint| format!("{complaint} while {phase}");
    let mut at = 0;
    let whole = length(bytes, &mut at, NOWHERE, None).map_err(during(HEADER))?;
    let end = at as u128 + u128::from(whole);
    let mut behind = at;
    let announced = length(bytes, &mut behind, end, message).map_err(during(CONTENT))?;
    let envelope_begin = behind as u128 + u128::from(announced) + 1;
    if most.is_some_and(|most| end > envelope_begin + u128::from(most)) {
        return Err(ENVELOPE.to_owned());
    }
    let content = netstring(bytes, &mut at, end, message).map_err(during(CONTENT))?;
    let sender = envelope(bytes, &mut at, end, address).map_err(during(SENDER))?;
    let mut recipients = Vec::new();
    while at as u128 != end {
        let recipient = envelope(bytes, &mut at, end, address);
        recipients.push(recipient.map_err(during(RECIPIENT))?);
    }
    let comma = byte(bytes, &mut at, NOWHERE).map_err(during(RECIPIENT))?;
    if comma != b',' {
        return Err(during(RECIPIENT)(FORMAT));
    }
    Ok(Parts {
        content,
        sender,
        recipients,
    })
}

/// The end of what has none.
const NOWHERE: u128 = u128::MAX;

/// The next byte, which has to be in front of `end`.
fn byte(bytes: &[u8], at: &mut usize, end: u128) -> Result<u8, Complaint> {
    if *at as u128 == end {
        return Err(FORMAT);
    }
    let byte = *bytes.get(*at).ok_or(LOST)?;
    *at += 1;
    Ok(byte)
}

fn length(bytes: &[u8], at: &mut usize, end: u128, limit: Option<u64>) -> Result<u64, Complaint> {
    let mut digits = String::from("0");
    loop {
        match byte(bytes, at, end)? {
            b':' => break,
            digit @ b'0'..=b'9' if digits.len() < 1 + DIGITS => digits.push(char::from(digit)),
            _ => return Err(FORMAT),
        }
        if digits.trim_start_matches('0').len() > 19 || digits.parse::<i64>().is_err() {
            return Err(SIZE);
        }
    }
    let length = digits.parse().unwrap();
    if limit.is_some_and(|limit| length > limit) {
        return Err(SIZE);
    }
    Ok(length)
}

/// The data of a netstring, all of which has to be in front of `end`.
fn netstring(
    bytes: &[u8],
    at: &mut usize,
    end: u128,
    limit: Option<u64>,
) -> Result<Vec<u8>, Complaint> {
    let length = length(bytes, at, end, limit)?;
    if *at as u128 + u128::from(length) + 1 > end {
        return Err(FORMAT);
    }
    let mut data = Vec::new();
    for _ in 0..length {
        data.push(byte(bytes, at, end)?);
    }
    match byte(bytes, at, end)? {
        b',' => Ok(data),
        _ => Err(FORMAT),
    }
}

fn envelope(bytes: &[u8], at: &mut usize, end: u128, limit: u64) -> Result<Vec<u8>, Complaint> {
    let address = netstring(bytes, at, end, Some(limit))?;
    if address.contains(&b'\r') || address.contains(&b'\n') || address.contains(&0) {
        return Err(ADDRESS);
    }
    Ok(address)
}
