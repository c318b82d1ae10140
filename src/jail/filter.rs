//! Makes a seccomp filter from the table.
//!
//! The call numbers are cut into spans with the same answer, and the filter searches the spans: seven comparisons,
//! where a chain of rules needs forty. This matters at the installation, when the kernel runs the filter once for every
//! system call. Follows seccomp(2) and bpf(4). Which calls are allowed is left to `jail::table` and `jail::limits`.
//! system call there is. Authority: seccomp(2), bpf(4). What is allowed is in `table`.

use std::os::fd::AsRawFd;

use super::Need;
use super::limits::{FIRST_UNKNOWN, Failure, LIMITS, Party};
use super::table::{Check, TABLE, Who};
use crate::sys::child::own_id;
use crate::sys::seccomp::{Instruction, NO_SUCH_CALL, NOT_PERMITTED, TRAP};

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64, AUDIT_ARCH_RISCV64: the architecture of the table's numbers.
pub const OWN_ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_00f3
};

// Opcodes: load a word of seccomp_data, compare the word with a constant and jump, jump, return a constant.
pub const LOAD: u16 = 0x20;
pub const JUMP: u16 = 0x05;
pub const JUMP_EQUAL: u16 = 0x15;
pub const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub const JUMP_SET: u16 = 0x45;
pub const RETURN: u16 = 0x06;

/// The bit that makes a 32-bit number negative.
const SIGN: u32 = 1 << 31;

/// The longest conditional jump: 255, less two for inserted jumps.
const REACH: usize = 253;

/// A row of the table for one need, with its values.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub call: u32,
    pub checks: &'static [Check],
    pub held: u32,
    pub length: u32,
    pub pid: u32,
}

/// The rows that count, the number that their calls must have, and the length of an address.
type Needed = (Who, u32, u32);

/// The rules that every process needs and those of `needs`, sorted by call.
pub fn rules(needs: &[Need<'_>]) -> Vec<Rule> {
    let everybody = [(Who::Everybody, 0, 0)];
    rules_of(everybody.into_iter().chain(needs.iter().map(held)))
}

fn rules_of(parties: impl Iterator<Item = Needed>) -> Vec<Rule> {
    let pid = own_id();
    let mut rules = Vec::with_capacity(2 * TABLE.len());
    for (who, held, length) in parties {
        let own = TABLE
            .iter()
            .filter(|row| row.who == who && row.why.holds_here());
        rules.extend(own.flat_map(|row| {
            let calls = row
                .calls
                .iter()
                .filter_map(|&call| u32::try_from(call).ok());
            calls.map(move |call| Rule {
                call,
                checks: row.checks,
                held,
                length,
                pid,
            })
        }));
    }
    rules.sort_unstable_by_key(|rule| rule.call);
    rules
}

/// The rows of a need.
fn held(need: &Need<'_>) -> Needed {
    let (who, number, length) = match need {
        Need::File(fd) => (Who::File, fd.as_raw_fd(), 0),
        Need::Unlink(fd) => (Who::Unlink, fd.as_raw_fd(), 0),
        Need::Connect(fd, length) => (Who::Connect, fd.as_raw_fd(), *length),
        Need::Wait(pid) => (Who::Wait, pid.as_raw(), 0),
    };
    (who, u32::from_ne_bytes(number.to_ne_bytes()), length)
}

/// Makes the filter of a confined process. `rules` are sorted by call; several rules for one call are alternatives. A
/// call that no rule allows is trapped.
pub fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = Backwards(Vec::with_capacity(4 * rules.len() + 8));
    let refuse = program.answer(TRAP);
    let allow = program.answer(libc::SECCOMP_RET_ALLOW);
    let mut spans = Spans(vec![(0, refuse)]);
    for rule in rules {
        // Another rule for the same call, or the refusal.
        let otherwise = spans.at(rule.call).unwrap_or(refuse);
        let then = program.checks(rule, allow, otherwise);
        spans.begin(rule.call, then);
        spans.begin(rule.call.saturating_add(1), refuse);
    }
    // A number with bit 30 set, an x32 call on x86_64, is in the last span, and refused.
    program.finish(&spans)
}

/// Makes the filter of a process that may make all calls except those limited for `party`.
pub fn assemble_limits(party: Party) -> Vec<Instruction> {
    let pid = own_id();
    let limits = LIMITS.iter().filter(|limit| limit.parties.contains(&party));
    let mut limits: Vec<_> = limits
        .flat_map(|limit| {
            let calls = limit.calls.iter();
            calls.filter_map(move |&call| Some((u32::try_from(call).ok()?, limit)))
        })
        .collect();
    limits.sort_unstable_by_key(|&(call, _)| call);
    let mut program = Backwards(Vec::with_capacity(4 * limits.len()));
    let [refuse, hide, allow] =
        [NOT_PERMITTED, NO_SUCH_CALL, libc::SECCOMP_RET_ALLOW].map(|word| program.answer(word));
    let mut spans = Spans(vec![(0, allow)]);
    for (call, limit) in limits {
        let otherwise = match limit.failure {
            Failure::NotPermitted => refuse,
            Failure::NoSuchCall => hide,
        };
        let rule = Rule {
            call,
            checks: limit.unless,
            held: 0,
            length: 0,
            pid,
        };
        let then = if limit.unless.is_empty() {
            otherwise
        } else {
            program.checks(&rule, allow, otherwise)
        };
        spans.begin(call, then);
        spans.begin(call.saturating_add(1), allow);
    }
    // This includes all x32 calls.
    spans.begin(FIRST_UNKNOWN, hide);
    program.finish(&spans)
}

/// The number of an instruction, counted from the end of the filter.
type Place = usize;

/// All call numbers, cut into spans: the first number of each, ascending, and the place to continue at.
struct Spans(Vec<(u32, Place)>);

impl Spans {
    /// Begins a span that reaches to the last number. Neighbours with the same place become one span.
    fn begin(&mut self, first: u32, then: Place) {
        let kept = self.0.partition_point(|&(other, _)| other < first);
        self.0.truncate(kept);
        if self.0.last().is_none_or(|&(_, before)| before != then) {
            self.0.push((first, then));
        }
    }

    fn at(&self, call: u32) -> Option<Place> {
        let span = self.0.iter().rev().find(|&&(first, _)| first <= call);
        span.map(|&(_, then)| then)
    }
}

/// A filter under construction, last instruction first: jumps go forward only, so that their targets exist already.
struct Backwards(Vec<Instruction>);

impl Backwards {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Place {
        self.0.push(Instruction { code, jt, jf, k });
        self.0.len() - 1
    }

    fn answer(&mut self, answer: u32) -> Place {
        self.push(RETURN, answer, 0, 0)
    }

    /// Loads a word for the instruction added last.
    fn load(&mut self, offset: u32) -> Place {
        self.push(LOAD, offset, 0, 0)
    }

    /// The number of instructions to skip from the next one to `place`.
    fn distance(&self, place: Place) -> usize {
        self.0.len() - 1 - place
    }

    /// Makes the next added instruction continue at `place`.
    fn go_on_with(&mut self, place: Place) -> Place {
        match u32::try_from(self.distance(place)) {
            Ok(0) | Err(_) => place,
            Ok(distance) => self.push(JUMP, distance, 0, 0),
        }
    }

    /// `place`, or an inserted jump to it within reach of a conditional jump.
    fn within_reach(&mut self, place: Place) -> Place {
        if self.distance(place) <= REACH {
            return place;
        }
        self.go_on_with(place)
    }

    fn jump(&mut self, code: u16, k: u32, then: Place, otherwise: Place) -> Place {
        let then = self.within_reach(then);
        let otherwise = self.within_reach(otherwise);
        let [jt, jf] = [then, otherwise].map(|place| {
            u8::try_from(self.distance(place)).expect("within_reach has brought it near")
        });
        self.push(code, k, jt, jf)
    }

    /// Adds the first instructions: the architecture and the search for the call.
    fn finish(mut self, spans: &Spans) -> Vec<Instruction> {
        let search = self.search(&spans.0);
        self.go_on_with(search);
        let number = self.load(NUMBER);
        let kill = self.answer(libc::SECCOMP_RET_KILL_PROCESS);
        self.jump(JUMP_EQUAL, OWN_ARCHITECTURE, number, kill);
        self.load(ARCHITECTURE);
        self.0.reverse();
        self.0
    }

    /// Finds the span of the loaded number.
    fn search(&mut self, spans: &[(u32, Place)]) -> Place {
        let (below, above) = spans.split_at(spans.len() / 2);
        let Some(&(first, then)) = above.first() else {
            return self.answer(libc::SECCOMP_RET_TRAP); // no span at all
        };
        if below.is_empty() {
            return then;
        }
        let then = self.search(above);
        let otherwise = self.search(below);
        self.jump(JUMP_GREATER_OR_EQUAL, first, then, otherwise)
    }

    /// Continues at `then` if the lower half of an argument is one of `numbers`, which are not empty.
    fn among(&mut self, argument: u32, numbers: &[u32], then: Place, otherwise: Place) -> Place {
        let mut next = otherwise;
        for &number in numbers.iter().rev() {
            next = self.jump(JUMP_EQUAL, number, then, next);
        }
        self.load(lower_half(argument))
    }

    /// Continues at `allow` if all checks of a rule hold.
    fn checks(&mut self, rule: &Rule, allow: Place, otherwise: Place) -> Place {
        let mut then = allow;
        for check in rule.checks.iter().rev() {
            then = match *check {
                Check::OwnPid(argument) => self.among(argument, &[rule.pid], then, otherwise),
                Check::Held(argument) => self.among(argument, &[rule.held], then, otherwise),
                Check::Length(argument) => self.among(argument, &[rule.length], then, otherwise),
                Check::Among(argument, numbers) => self.among(argument, numbers, then, otherwise),
                Check::Except(argument, numbers) => self.among(argument, numbers, otherwise, then),
                Check::Null(argument) => {
                    self.jump(JUMP_EQUAL, 0, then, otherwise);
                    let upper = self.load(lower_half(argument) + 4);
                    self.jump(JUMP_EQUAL, 0, upper, otherwise);
                    self.load(lower_half(argument))
                }
                Check::Without(argument, bits) => {
                    self.jump(JUMP_SET, bits, otherwise, then);
                    self.load(lower_half(argument))
                }
                Check::With(argument, bits) => {
                    self.jump(JUMP_SET, bits, then, otherwise);
                    self.load(lower_half(argument))
                }
                Check::Positive(argument) => {
                    let positive = self.jump(JUMP_EQUAL, 0, otherwise, then);
                    self.jump(JUMP_SET, SIGN, otherwise, positive);
                    self.load(lower_half(argument))
                }
            };
        }
        then
    }
}

/// The offset of an argument's lower 32 bits, on little-endian machines.
fn lower_half(argument: u32) -> u32 {
    ARGUMENTS + 8 * argument
}
