//! The reader of PROXY headers against an obvious one, and over a real socket: nothing is taken beyond the header.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::peer::upstream;
use crate::wire::proxy_header::{BINARY_LIMIT, Fault, Header, LINE_LIMIT, Scan, scan};

/// What a proxy sends.
pub fn proxy_header(data: &[u8]) {
    let whole = scan(data);
    assert_eq!(whole, obvious(data), "{data:?}");
    // However many bytes there are already, the answer is the same, or not there yet.
    let mut seen = Ok(Scan::Partial);
    for end in 0..=data.len().min(300) {
        let now = scan(&data[..end]);
        assert!(
            seen == Ok(Scan::Partial) || seen == now,
            "{end}: {seen:?}, {now:?}"
        );
        seen = now;
    }
    if data.len() > 300 && seen != Ok(Scan::Partial) {
        assert_eq!(seen, whole);
    }
    if data.len() <= 2 * BINARY_LIMIT {
        take(data, whole);
    }
}

/// Reads the header from a socket that has `data` and then ends.
fn take(data: &[u8], expected: Result<Scan, Fault>) {
    let (mut proxy, mut server) = UnixStream::pair().unwrap();
    proxy.write_all(data).unwrap();
    drop(proxy);
    let taken = upstream::read_header(server.as_fd(), Duration::from_secs(5));
    match (taken, expected) {
        (
            Ok(header),
            Ok(Scan::Whole {
                header: same,
                length,
            }),
        ) => {
            assert_eq!(header, same);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, data[length..]);
        }
        (Err(upstream::Fault::Lost), Ok(Scan::Partial)) => {}
        (Err(upstream::Fault::Header(fault)), Err(same)) => assert_eq!(fault, same),
        (taken, expected) => panic!("{taken:?}, {expected:?}"),
    }
}

/// By the words of the specification, one after another.
fn obvious(data: &[u8]) -> Result<Scan, Fault> {
    let signature: Vec<u8> = vec![13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10];
    let shorter = |start: &[u8]| data.len() < start.len() && *data == start[..data.len()];
    if data.starts_with(b"PROXY ") {
        return line(data);
    }
    if data.starts_with(&signature) {
        return binary(data);
    }
    if shorter(b"PROXY ") || shorter(&signature) {
        return Ok(Scan::Partial);
    }
    Err(Fault::Missing)
}

fn line(data: &[u8]) -> Result<Scan, Fault> {
    // Bytes above 127 become one character each.
    let text: String = data
        .iter()
        .take(LINE_LIMIT)
        .map(|&byte| char::from(byte))
        .collect();
    let Some((line, _)) = text.split_once("\r\n") else {
        return if data.len() >= LINE_LIMIT {
            Err(Fault::TooLong)
        } else {
            Ok(Scan::Partial)
        };
    };
    let length = line.chars().count() + 2;
    let words: Vec<&str> = line.split(' ').collect();
    let header = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(Header::Check),
        [
            "PROXY",
            family @ ("TCP4" | "TCP6"),
            from,
            to,
            from_port,
            to_port,
        ] => {
            let both = (address(family, from), address(family, to));
            let ports = (port(from_port), port(to_port));
            match (both, ports) {
                ((Some(address), Some(_)), (Some(port), Some(_))) => {
                    Some(Header::Client { address, port })
                }
                _ => None,
            }
        }
        _ => None,
    };
    let header = header.ok_or(Fault::Malformed)?;
    Ok(Scan::Whole { header, length })
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (address.is_ipv4() == (family == "TCP4")).then_some(address)
}

fn port(text: &str) -> Option<u16> {
    (0..=u16::MAX).find(|port| port.to_string() == text)
}

fn binary(data: &[u8]) -> Result<Scan, Fault> {
    if data.len() < 16 {
        return Ok(Scan::Partial);
    }
    let length = 16 + usize::from(data[14]) * 256 + usize::from(data[15]);
    let (version, command) = (data[12] / 16, data[12] % 16);
    if version != 2 || command > 1 {
        return Err(Fault::Malformed);
    }
    if length > BINARY_LIMIT {
        return Err(Fault::TooLong);
    }
    if data.len() < length {
        return Ok(Scan::Partial);
    }
    let (family, protocol) = (data[13] / 16, data[13] % 16);
    let number = |at: usize| u16::from(data[at]) * 256 + u16::from(data[at + 1]);
    let header = match (command, family, protocol) {
        (0, _, _) => Header::Check,
        (_, 1, 1) if length >= 16 + 12 => {
            let address = <[u8; 4]>::try_from(&data[16..20]).unwrap().into();
            let port = number(24);
            Header::Client { address, port }
        }
        (_, 2, 1) if length >= 16 + 36 => {
            let address = <[u8; 16]>::try_from(&data[16..32]).unwrap().into();
            let port = number(48);
            Header::Client { address, port }
        }
        (_, 1 | 2, 1) => return Err(Fault::Malformed),
        (_, 0..=3, 0..=2) => Header::Unknown,
        _ => return Err(Fault::Malformed),
    };
    Ok(Scan::Whole { header, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random::{self, Random};

    fn sample(random: &mut Random) -> Vec<u8> {
        let addresses = [
            "192.0.2.7",
            "::1",
            "2001:DB8::7",
            "127.0.0.1",
            "1.2.3",
            "0.0.0.00",
            "x",
        ];
        let ports = ["0", "628", "65535", "65536", "01", "-1", ""];
        let mut bytes = if random.below(2) == 0 {
            let pick = |random: &mut Random, of: &[&str]| of[random.below(of.len())].to_owned();
            let family = pick(random, &["TCP4", "TCP6", "TCP4", "TCP6", "UNKNOWN", "UDP4"]);
            let mut words = vec!["PROXY".to_owned(), family];
            for _ in 0..2 {
                words.push(pick(random, &addresses));
            }
            for _ in 0..2 {
                words.push(pick(random, &ports));
            }
            words.truncate(6 - random.below(12).min(4) % 3);
            let padding = "x".repeat(random.below(2) * random.below(80));
            format!("{}{padding}\r\n", words.join(" ")).into_bytes()
        } else {
            let length = [0, 12, 36, 216, 11, 35, 60, 4080, 4081][random.below(9)];
            let command = [0x21, 0x21, 0x21, 0x20, 0x22, 0x11][random.below(6)];
            let family = [0x11, 0x21, 0x31, 0, 0x12, 0x41, 0x13][random.below(7)];
            let high_and_low = u16::try_from(length).unwrap().to_be_bytes();
            let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            bytes.extend([command, family]);
            bytes.extend(high_and_low);
            bytes.extend((0..length).map(|_| random.byte()));
            bytes
        };
        bytes.extend(b"12:3:abc,");
        if random.below(3) == 0 {
            random.damage(&mut bytes);
        }
        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len() + 1));
        }
        bytes
    }

    #[test]
    fn headers_are_read_as_by_an_obvious_reader() {
        crate::sys::alarm::init().unwrap();
        random::run("proxy_header", proxy_header, sample);
    }
}
