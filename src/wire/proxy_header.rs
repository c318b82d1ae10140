//! Reads the header of the PROXY protocol, by which a proxy names the client of a connection.
//!
//! Reads versions 1 (a line) and 2 (binary) from bytes that begin with a header, or with a part of it. Follows "The
//! PROXY protocol", section 2, <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Where the bytes come
//! from, and whether the sender may be a proxy, is left to `peer::upstream`.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header of version 1, CR and LF included, in bytes (section 2.1).
pub const LINE_LIMIT: usize = 107;

/// The longest header of version 2, in bytes. The specification allows 65551; what proxies add to the addresses (names,
/// TLS versions, checksums) is a few hundred.
pub const BINARY_LIMIT: usize = 4096;

/// The beginning of a header of version 1.
const WORD: &[u8] = b"PROXY ";

/// The beginning of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, and the length of the rest.
const BINARY_START: usize = 16;

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is this client's.
    Client { address: IpAddr, port: u16 },
    /// A health check: there is no client. LOCAL of version 2, and UNKNOWN of version 1, which old proxies send for it.
    Check,
    /// The client is not on the Internet, or its address is not given.
    Unknown,
}

/// The extent of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// All bytes belong to the header, which is not complete.
    Partial,
    /// The header is complete, and has `length` bytes; others may follow.
    Whole { header: Header, length: usize },
}

/// Why the bytes are no header. The proxy is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes begin like neither version.
    Missing,
    /// The bytes begin like a version, and then break its rules.
    Malformed,
    /// The header is longer than its limit.
    TooLong,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Missing => "missing PROXY header",
            Fault::Malformed => "malformed PROXY header",
            Fault::TooLong => "too long PROXY header",
        })
    }
}

/// Reads the header that `bytes` begin with.
pub fn scan(bytes: &[u8]) -> Result<Scan, Fault> {
    if begins(bytes, SIGNATURE) {
        scan_binary(bytes)
    } else if begins(bytes, WORD) {
        scan_line(bytes)
    } else {
        Err(Fault::Missing)
    }
}

/// Whether `bytes` begin with `start`, or may do so when more bytes arrive.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn scan_line(bytes: &[u8]) -> Result<Scan, Fault> {
    let bytes = bytes.get(..LINE_LIMIT).unwrap_or(bytes);
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_LIMIT {
            Ok(Scan::Partial)
        } else {
            Err(Fault::TooLong)
        };
    };
    let line = bytes.get(WORD.len()..end).ok_or(Fault::Malformed)?;
    let header = header_of_line(line).ok_or(Fault::Malformed)?;
    let length = end + 2;
    Ok(Scan::Whole { header, length })
}

/// The header of the text after [`WORD`].
fn header_of_line(line: &[u8]) -> Option<Header> {
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Header::Check);
    }
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split(' ');
    let address_of: fn(&str) -> Option<IpAddr> = match fields.next()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let address = address_of(fields.next()?)?;
    address_of(fields.next()?)?;
    let port = port_of(fields.next()?)?;
    port_of(fields.next()?)?;
    match fields.next() {
        None => Some(Header::Client { address, port }),
        Some(_) => None,
    }
}

/// A decimal number without a sign or leading zeros.
fn port_of(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

fn scan_binary(bytes: &[u8]) -> Result<Scan, Fault> {
    let Some(&[version_and_command, family, high, low]) = bytes.get(SIGNATURE.len()..BINARY_START)
    else {
        return Ok(Scan::Partial);
    };
    let length = BINARY_START + usize::from(u16::from_be_bytes([high, low]));
    let is_check = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Malformed),
    };
    if length > BINARY_LIMIT {
        return Err(Fault::TooLong);
    }
    let Some(addresses) = bytes.get(BINARY_START..length) else {
        return Ok(Scan::Partial);
    };
    let header = if is_check {
        Header::Check
    } else {
        header_of_addresses(family, addresses).ok_or(Fault::Malformed)?
    };
    Ok(Scan::Whole { header, length })
}

/// The header of the byte of family and protocol, and of the bytes after the length.
fn header_of_addresses(family: u8, addresses: &[u8]) -> Option<Header> {
    let (address, port): (IpAddr, _) = match family {
        0x11 => {
            let (start, _) = addresses.split_first_chunk::<12>()?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *start;
            (Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }
        0x21 => {
            let (start, _) = addresses.split_first_chunk::<36>()?;
            let (source, rest) = start.split_first_chunk::<16>()?;
            let ports = rest.get(16..)?;
            (Ipv6Addr::from(*source).into(), *ports.first_chunk()?)
        }
        // Families and protocols of the specification without an Internet address: none, UNIX-domain sockets,
        // datagrams.
        _ if family >> 4 <= 3 && family & 0xf <= 2 => return Some(Header::Unknown),
        _ => return None,
    };
    let port = u16::from_be_bytes(port);
    Some(Header::Client { address, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn client(address: &str, port: u16) -> Header {
        let address = address.parse().unwrap();
        Header::Client { address, port }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// Each beginning is partial, and the bytes after the header are not used.
    fn assert_whole(bytes: &[u8], header: Header) {
        for end in 0..bytes.len() {
            assert_eq!(scan(&bytes[..end]), Ok(Scan::Partial), "{end}: {bytes:?}");
        }
        let length = bytes.len();
        let whole = Ok(Scan::Whole { header, length });
        assert_eq!(scan(bytes), whole, "{bytes:?}");
        assert_eq!(scan(&[bytes, b"12:"].concat()), whole);
    }

    #[test]
    fn lines_of_version_1() {
        assert_whole(
            b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 628\r\n",
            client("192.0.2.7", 56324),
        );
        assert_whole(
            b"PROXY TCP6 2001:DB8::7 ::1 0 65535\r\n",
            client("2001:db8::7", 0),
        );
        assert_whole(b"PROXY UNKNOWN\r\n", Header::Check);
        assert_whole(b"PROXY UNKNOWN any\nthing\xff\r \r\n", Header::Check);
    }

    #[test]
    fn lines_that_are_no_header() {
        for rest in [
            "",
            "TCP4",
            "TCP4 192.0.2.7 192.0.2.8 1",
            "TCP4 192.0.2.7 192.0.2.8 1 2 ",
            "TCP4 192.0.2.7 192.0.2.8 1 2 3",
            "TCP4  192.0.2.7 192.0.2.8 1 2",
            "TCP4 192.0.2.07 192.0.2.8 1 2",
            "TCP4 192.0.2.256 192.0.2.8 1 2",
            "TCP4 192.0.2.7 192.0.2 1 2",
            "TCP4 192.0.2.7 192.0.2.8 01 2",
            "TCP4 192.0.2.7 192.0.2.8 1 +2",
            "TCP4 192.0.2.7 192.0.2.8 65536 2",
            "TCP4 192.0.2.7 192.0.2.8 1 2\n",
            "TCP4 192.0.2.7 192.0.2.8 1\t2",
            "TCP4 ::1 ::1 1 2",
            "TCP6 192.0.2.7 192.0.2.8 1 2",
            "TCP6 fe80::1%eth0 ::1 1 2",
            "UDP4 192.0.2.7 192.0.2.8 1 2",
            "tcp4 192.0.2.7 192.0.2.8 1 2",
            "UNKNOWNS",
        ] {
            let line = format!("PROXY {rest}\r\n");
            assert_eq!(scan(line.as_bytes()), Err(Fault::Malformed), "{line:?}");
        }
        for bytes in [
            &b"x"[..],
            b"PROXX",
            b"proxy ",
            b"\n",
            b"\r\n\r\n\0\r\nQUIT\r",
        ] {
            assert_eq!(scan(bytes), Err(Fault::Missing), "{bytes:?}");
        }
    }

    #[test]
    fn a_line_has_107_bytes_at_most() {
        let line = |length: usize| {
            let text = "x".repeat(length - "PROXY UNKNOWN \r\n".len());
            format!("PROXY UNKNOWN {text}\r\n").into_bytes()
        };
        assert_whole(&line(LINE_LIMIT), Header::Check);
        assert_eq!(scan(&line(LINE_LIMIT + 1)), Err(Fault::TooLong));
        assert_eq!(
            scan(&line(LINE_LIMIT + 1)[..LINE_LIMIT]),
            Err(Fault::TooLong)
        );
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 0, 2, 7, 192, 0, 2, 8, 0xdc, 4, 2, 0x74];
        assert_whole(
            &binary(0x21, 0x11, &v4),
            Header::Client {
                address: V4,
                port: 56324,
            },
        );
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[9; 16], &[0, 1, 0, 2]].concat();
        let tlv = [4, 0, 2, 7, 7];
        assert_whole(
            &binary(0x21, 0x21, &[&v6[..], &tlv].concat()),
            client("::1", 1),
        );
        assert_whole(&binary(0x20, 0, &[]), Header::Check);
        assert_whole(&binary(0x20, 0xff, &v4), Header::Check);
        for family in [0, 1, 0x10, 0x12, 0x22, 0x31, 0x32] {
            assert_whole(&binary(0x21, family, &[1; 216]), Header::Unknown);
        }
    }

    #[test]
    fn binary_bytes_that_are_no_header() {
        for (command, family, length) in [
            (0x22, 0x11, 12),
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x21, 0x41, 12),
            (0x21, 0x13, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
        ] {
            let bytes = binary(command, family, &vec![1; length]);
            assert_eq!(scan(&bytes), Err(Fault::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn a_binary_header_has_4096_bytes_at_most() {
        let bytes = |length: usize| binary(0x20, 0, &vec![0; length - BINARY_START]);
        assert_whole(&bytes(BINARY_LIMIT), Header::Check);
        assert_eq!(
            scan(&bytes(BINARY_LIMIT + 1)[..BINARY_START]),
            Err(Fault::TooLong)
        );
    }
}
