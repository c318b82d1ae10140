//! A QMQP load generator: clients that send one message after another, each over a connection of its own, and wait
//! for the reply.

use std::io::{self, Error, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any message takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a line of content, with its end.
const LINE: usize = 72;

/// What a message is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Bytes of header and body.
    pub content: usize,
    pub recipients: usize,
}

impl Shape {
    /// The request for such a message. Recipients differ, so that nobody finds duplicates.
    pub fn request(self) -> Vec<u8> {
        let mut content =
            b"From: s@client.example\nTo: r@rcpt.example\nSubject: measured\n\n".to_vec();
        while content.len() < self.content {
            let line = LINE.min(self.content - content.len());
            content.resize(content.len() + line - 1, b'x');
            content.push(b'\n');
        }
        let mut parts = Vec::with_capacity(content.len() + 40 * (self.recipients + 2));
        netstring(&mut parts, &content);
        netstring(&mut parts, b"s@client.example");
        for number in 1..=self.recipients {
            netstring(&mut parts, format!("r{number:06}@rcpt.example").as_bytes());
        }
        let mut request = Vec::with_capacity(parts.len() + 16);
        netstring(&mut request, &parts);
        request
    }
}

fn netstring(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(data);
    out.push(b',');
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub clients: usize,
    /// No message is begun after this time,
    pub time: Duration,
    /// unless its client has sent fewer than this.
    pub least: usize,
}

/// What came of it.
pub struct Sent {
    /// From the first connection to the last reply.
    pub elapsed: Duration,
    /// Of each message, from before the connection to the end of the reply; sorted.
    pub latencies: Vec<Duration>,
}

impl Sent {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that so many of a hundred messages do not exceed, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies[rank - 1].as_secs_f64() * 1e3
    }
}

/// Sends to a port of the loopback interface. The first message that is not accepted is an error.
pub fn send(port: u16, request: &[u8], load: Load) -> io::Result<Sent> {
    let start = Instant::now();
    let results: Vec<io::Result<Vec<Duration>>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..load.clients)
            .map(|_| scope.spawn(|| client(port, request, load)))
            .collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined
            .map(|result| result.expect("a client does not panic"))
            .collect()
    });
    let elapsed = start.elapsed();
    let mut latencies = Vec::new();
    for result in results {
        latencies.extend(result?);
    }
    latencies.sort();
    Ok(Sent { elapsed, latencies })
}

fn client(port: u16, request: &[u8], load: Load) -> io::Result<Vec<Duration>> {
    let end = Instant::now() + load.time;
    let mut latencies = Vec::new();
    while latencies.len() < load.least || Instant::now() < end {
        latencies.push(message(port, request)?);
    }
    Ok(latencies)
}

/// One message; how long it took.
pub fn message(port: u16, request: &[u8]) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(request)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let elapsed = start.elapsed();
    let status = reply
        .iter()
        .position(|&byte| byte == b':')
        .map(|colon| reply.get(colon + 1));
    if status.flatten() == Some(&b'K') {
        Ok(elapsed)
    } else {
        Err(Error::other(format!(
            "reply {:?}",
            String::from_utf8_lossy(&reply)
        )))
    }
}
