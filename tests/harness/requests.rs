//! Requests that nobody wrote: well formed ones of odd parts, and then often with a piece changed.

use super::cleanup::Script;
use super::peers::Act;
use super::server::Setting;
use super::text;

/// A generator of numbers that gives the same ones for the same seed (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    /// `seed` must not be 0.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % limit
    }

    /// Yes, once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// One request and what it meets.
pub struct Case {
    pub request: Vec<u8>,
    pub line_length_limit: usize,
    /// Zero is none.
    pub message_size_limit: usize,
    pub soft_bounce: bool,
    /// Status and reason of cleanup, as in a dialogue.
    pub verdict: &'static str,
}

impl Case {
    /// The next case.
    pub fn make(numbers: &mut Numbers) -> Case {
        let mut request = well_formed(numbers);
        if numbers.one_in(2) {
            for _ in 0..=numbers.below(3) {
                spoil(&mut request, numbers);
            }
        }
        Case {
            request,
            line_length_limit: numbers.pick(&[2048, 2048, 512]),
            message_size_limit: numbers.pick(&[10_240_000, 10_240_000, 0, 400, 40, 14]),
            soft_bounce: numbers.one_in(8),
            verdict: numbers.pick(&[
                "0",
                "0",
                "0",
                "0",
                "64",
                "8 5.7.1 no",
                "8 4.7.1 no",
                "256 later",
                "6",
                "1",
            ]),
        }
    }

    /// How to run it: at the end the client closes its sending half, so that nobody waits.
    pub fn setting(&self) -> Setting {
        let mut cleanup = Script::default();
        cleanup.add(&format!("status {}", self.verdict)).unwrap();
        let conf = self.conf();
        let client = vec![Act::Send(self.request.clone()), Act::Eof];
        Setting {
            conf,
            cleanup,
            client,
            ..Setting::default()
        }
    }

    fn conf(&self) -> Vec<String> {
        vec![
            format!("line_length_limit = {}", self.line_length_limit),
            format!("message_size_limit = {}", self.message_size_limit),
            format!(
                "soft_bounce = {}",
                if self.soft_bounce { "yes" } else { "no" }
            ),
        ]
    }

    /// The case as a dialogue file begins.
    pub fn text(&self) -> String {
        let conf: String = self
            .conf()
            .iter()
            .map(|line| format!("conf: {line}\n"))
            .collect();
        format!(
            "{conf}cleanup: status {}\nc: {}\nc: <eof>\n",
            self.verdict,
            text::show(&self.request)
        )
    }
}

/// What messages are put together from.
const MESSAGE: [&[u8]; 16] = [
    b"Subject: t\n",
    b"\n",
    b"b\n",
    b"From a@b Mon\n",
    b">From a@b\n",
    b" folded\n",
    b"\tfolded\n",
    b"no end",
    b"\r\n",
    b"a\0b\n",
    b"\xff\xfe\n",
    b"From",
    b".\n",
    b"X: 1\n",
    b"",
    b"\n\n",
];

/// What addresses are put together from.
const ADDRESS: [&[u8]; 18] = [
    b"s",
    b"list",
    b"@",
    b"x.example",
    b"-@[]",
    b"-",
    b"+",
    b"=",
    b".",
    b" ",
    b"\"",
    b"\\",
    b":",
    b"<>",
    b"\xc3\xa9",
    b"\x01",
    b"@y.example",
    b"root",
];

fn well_formed(numbers: &mut Numbers) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..numbers.below(7) {
        message.extend_from_slice(numbers.pick(&MESSAGE));
    }
    if numbers.one_in(6) {
        let length = 510 + 512 * numbers.below(9) + numbers.below(5);
        let first = numbers.pick::<&[u8]>(&[b"", b"From ", b" "]);
        message.extend_from_slice(first);
        message.resize(message.len() + length - first.len(), b'x');
        message.extend_from_slice(numbers.pick::<&[u8]>(&[b"\n", b"", b"\nb\n"]));
    }
    let mut parts = netstring(&message, numbers);
    parts.extend(netstring(&address(numbers), numbers));
    for _ in 0..numbers.pick(&[1, 1, 1, 0, 2, 3, 9]) {
        parts.extend(netstring(&address(numbers), numbers));
    }
    netstring(&parts, numbers)
}

fn address(numbers: &mut Numbers) -> Vec<u8> {
    let mut address = Vec::new();
    for _ in 0..numbers.below(6) {
        address.extend_from_slice(numbers.pick(&ADDRESS));
    }
    if numbers.one_in(4) {
        address.extend_from_slice(b"-@x.example-@[]");
    }
    if numbers.one_in(20) {
        address.insert(numbers.below(address.len() + 1), numbers.pick(b"\r\n\0"));
    }
    if numbers.one_in(20) {
        let length = numbers.pick(&[511, 512, 513, 2047, 2048, 2049]);
        address.resize(length, b'r');
    }
    address
}

fn netstring(data: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let zeros = if numbers.one_in(10) {
        numbers.pick(&[1, 2, 3, 17, 18, 19, 20, 21])
    } else {
        0
    };
    let mut length = "0".repeat(zeros) + &data.len().to_string();
    if data.is_empty() && numbers.one_in(3) {
        length.clear();
    }
    [length.as_bytes(), b":", data, b","].concat()
}

/// Changes one thing.
fn spoil(request: &mut Vec<u8>, numbers: &mut Numbers) {
    let place = numbers.below(request.len() + 1);
    let byte = numbers.pick(b"0123456789:::,,,,x\n\0 -\xff");
    match numbers.below(8) {
        0 => request.truncate(place),
        1 => request.insert(place, byte),
        2 | 3 if place < request.len() => request[place] = byte,
        4 if place < request.len() => drop(request.remove(place)),
        5 => {
            let digits = request
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let outer: &[u8] =
                numbers.pick::<&[u8]>(&[b"", b"0", b"1", b"20", b"99999", b"9223372036854775808"]);
            request.splice(..digits, outer.iter().copied());
        }
        6 => {
            let end = place + numbers.below(30).min(request.len() - place);
            let piece = request[place..end].to_vec();
            let at = numbers.below(request.len() + 1);
            request.splice(at..at, piece);
        }
        _ => request.push(byte),
    }
}
