//! What has been measured, one value for each round.

use std::collections::BTreeMap;

use crate::load::{Sent, Shape};
use crate::measure::{Session, Usage};
use crate::servers::{Mode, Server};

/// A row of the table, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub place: &'static str,
    pub shape: Shape,
    pub clients: usize,
    pub mode: Mode,
    pub server: Server,
}

impl Key {
    /// The row of another server under the same conditions.
    pub fn of(self, mode: Mode, server: Server) -> Key {
        Key {
            mode,
            server,
            ..self
        }
    }
}

/// Values of the rounds. Times are in milliseconds, for one message.
#[derive(Debug, Default)]
pub struct Samples {
    pub rate: Vec<f64>,
    pub p50: Vec<f64>,
    pub p95: Vec<f64>,
    pub p99: Vec<f64>,
    pub user: Vec<f64>,
    pub system: Vec<f64>,
    pub cpu: Vec<f64>,
    /// Processor time of the server as a whole, launcher and all.
    pub whole: Vec<f64>,
    /// What `cpu` is in the single rounds, where it stands for all of them.
    pub cpu_rounds: Vec<f64>,
    /// The rate by qmqp-source(1).
    pub source: Vec<f64>,
    pub faults: Vec<f64>,
    /// Of a metered session, as its client saw it.
    pub elapsed: Vec<f64>,
    /// Peak, in bytes.
    pub memory: Vec<f64>,
    /// Counted once.
    pub calls: Vec<f64>,
    pub instructions: Vec<f64>,
}

impl Samples {
    pub fn add_sent(&mut self, sent: &Sent) {
        self.rate.push(sent.per_second());
        self.p50.push(sent.percentile(50));
        self.p95.push(sent.percentile(95));
        self.p99.push(sent.percentile(99));
    }

    /// What one message took in a round.
    pub fn add_usage(&mut self, usage: Usage) {
        self.user.push(usage.user);
        self.system.push(usage.system);
        self.cpu.push(usage.cpu());
        self.faults.push(usage.faults);
    }

    pub fn add_sessions(&mut self, sessions: &[Session]) {
        let sum = sessions
            .iter()
            .fold(Usage::default(), |sum, session| sum.plus(session.usage));
        let usage = sum.per(sessions.len());
        self.add_usage(usage);
        self.cpu_rounds.push(usage.cpu());
        let elapsed: Vec<f64> = sessions
            .iter()
            .map(|session| session.elapsed.as_secs_f64() * 1e3)
            .collect();
        self.elapsed.extend(median(&elapsed));
        self.memory.push(
            sessions
                .iter()
                .map(|session| session.memory)
                .fold(0.0, f64::max),
        );
    }
}

#[derive(Debug, Default)]
pub struct Results {
    pub rows: BTreeMap<Key, Samples>,
}

impl Results {
    pub fn row(&mut self, key: Key) -> &mut Samples {
        self.rows.entry(key).or_default()
    }

    /// The median of one thing in one row, if it was measured.
    pub fn median(&self, key: Key, of: fn(&Samples) -> &Vec<f64>) -> Option<f64> {
        median(of(self.rows.get(&key)?))
    }

    /// The median of a row by that of another.
    pub fn ratio(&self, key: Key, by: Key, of: fn(&Samples) -> &Vec<f64>) -> Option<f64> {
        let divisor = self.median(by, of)?;
        (divisor > 0.0).then_some(self.median(key, of)? / divisor)
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The least and the greatest.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().reduce(f64::min)?;
    let greatest = values.iter().copied().reduce(f64::max)?;
    Some((least, greatest))
}
