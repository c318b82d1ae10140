//! Tests of the filter: runs it here as the kernel does, and compares it with the table, row by row.
//!
//! The kernel itself is left to `kernel_tests`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::unistd::Pid;
use proptest::prelude::*;

use super::Need;
use super::filter::{
    JUMP, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, JUMP_SET, LOAD, OWN_ARCHITECTURE, RETURN, Rule,
    assemble, assemble_limits, rules,
};
use super::limits::{FIRST_UNKNOWN, Failure, LIMITS, Limit, Party};
use super::table::{Check, TABLE, Who};
use crate::sys::seccomp::{Instruction, NO_SUCH_CALL, NOT_PERMITTED};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const X32: u32 = 0x4000_0000;
const I386: u32 = 0x4000_0003;

/// The length of the address that a socket may be connected to.
const LENGTH: u32 = 15;

/// Runs a filter as the kernel does. Returns the answer and the number of instructions.
fn interpret(program: &[Instruction], architecture: u32, call: u32, args: [u64; 6]) -> (u32, u32) {
    let mut data = [0; 64];
    data[0..4].copy_from_slice(&call.to_le_bytes());
    data[4..8].copy_from_slice(&architecture.to_le_bytes());
    for (to, arg) in data[16..].chunks_exact_mut(8).zip(args) {
        to.copy_from_slice(&arg.to_le_bytes());
    }
    let (mut word, mut at) = (0, 0);
    for steps in 1.. {
        let Instruction { code, jt, jf, k } = program[at];
        let choose = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        match code {
            LOAD => {
                let place = k as usize;
                assert_eq!(place % 4, 0, "the kernel refuses this");
                word = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
            }
            JUMP => at += k as usize,
            JUMP_EQUAL => at += choose(word == k),
            JUMP_GREATER_OR_EQUAL => at += choose(word >= k),
            JUMP_SET => at += choose(word & k != 0),
            RETURN => return (k, steps),
            unknown => panic!("opcode {unknown:#x}"),
        }
    }
    unreachable!()
}

fn holds(check: Check, args: [u64; 6], held: u32, pid: u32) -> bool {
    let low = |n: u32| args[n as usize] & 0xffff_ffff;
    match check {
        Check::OwnPid(n) => low(n) == u64::from(pid),
        Check::Held(n) => low(n) == u64::from(held),
        Check::Length(n) => low(n) == u64::from(LENGTH),
        Check::Among(n, numbers) => numbers.iter().any(|&number| low(n) == u64::from(number)),
        Check::Except(n, numbers) => numbers.iter().all(|&number| low(n) != u64::from(number)),
        Check::Null(n) => args[n as usize] == 0,
        Check::Without(n, bits) => low(n) & u64::from(bits) == 0,
        Check::With(n, bits) => low(n) & u64::from(bits) != 0,
        Check::Positive(n) => (1..1 << 31).contains(&low(n)),
    }
}

/// The same answer from the table, row by row.
fn scan(needs: &[(Who, u32)], call: u32, args: [u64; 6]) -> u32 {
    let allowed = TABLE.iter().any(|row| {
        row.why.holds_here()
            && row.calls.contains(&call.into())
            && needs.iter().any(|&(who, held)| {
                let holds = |&check: &Check| holds(check, args, held, std::process::id());
                row.who == who && row.checks.iter().all(holds)
            })
    });
    if allowed { ALLOW } else { TRAP }
}

/// Argument lists that meet each check, and lists that miss it by one bit in the lower or the upper half.
fn arguments(held: u32) -> Vec<[u64; 6]> {
    let (held, pid) = (u64::from(held), u64::from(std::process::id()));
    let mut lists = Vec::new();
    let upper = [1 << 32, 1 << 63, 4 << 32, (1 << 32) | held];
    for value in (0..9)
        .chain([15, 24, 0o700, 0o6755, u64::from(u32::MAX)])
        .chain(upper)
        .chain([held, held ^ 1, 1 << 31, u64::MAX])
    {
        lists.push([value; 6]);
        for at in 0..6 {
            let mut list = [0; 6];
            list[at] = value;
            lists.push(list);
        }
        lists.push([pid, pid, value, 0, 0, 0]);
        lists.push([pid ^ 1, pid, value, 0, 0, 0]);
    }
    lists
}

/// Compares the filter for `needs` with the table's rows for `parties`.
fn compare(needs: &[Need<'_>], parties: &[(Who, u32)]) {
    let program = assemble(&rules(needs));
    assert!(program.len() < 256, "{}", program.len());
    let mut parties = parties.to_vec();
    parties.push((Who::Everybody, 0));
    let known: Vec<[u64; 6]> = parties
        .iter()
        .flat_map(|party| arguments(party.1))
        .collect();
    let is_listed = |call: u32| TABLE.iter().any(|row| row.calls.contains(&call.into()));
    compare_program(&program, &known, is_listed, |call, args| {
        scan(&parties, call, args)
    });
}

/// Compares a filter with the expected answers, for every number that is a call or near one; `known` calls with all
/// their arguments.
fn compare_program(
    program: &[Instruction],
    known: &[[u64; 6]],
    is_listed: impl Fn(u32) -> bool,
    expected: impl Fn(u32, [u64; 6]) -> u32,
) {
    let calls = (0..=1024).chain([(1 << 31) - 1, 1 << 31, u32::MAX]);
    for call in calls.chain((0..=1024).map(|call| X32 | call)) {
        let lists: &[[u64; 6]] = if is_listed(call) {
            known
        } else {
            &[[0; 6], [u64::MAX; 6]]
        };
        for &args in lists {
            let (answer, _) = interpret(program, OWN_ARCHITECTURE, call, args);
            assert_eq!(answer, expected(call, args), "call {call} {args:x?}");
        }
        for architecture in [I386, OWN_ARCHITECTURE ^ 1, OWN_ARCHITECTURE ^ (1 << 31)] {
            assert_eq!(interpret(program, architecture, call, [0; 6]).0, KILL);
        }
    }
}

#[test]
fn the_program_answers_every_call_as_the_table_does() {
    let null = || File::open("/dev/null").unwrap();
    let (file, other) = (null(), null());
    let number = |fd: &File| u32::try_from(fd.as_raw_fd()).unwrap();
    compare(&[], &[]);
    compare(&[Need::Wait(Pid::from_raw(77))], &[(Who::Wait, 77)]);
    compare(
        &[
            Need::File(file.as_fd()),
            Need::Unlink(file.as_fd()),
            Need::Connect(other.as_fd(), LENGTH),
        ],
        &[
            (Who::File, number(&file)),
            (Who::Unlink, number(&file)),
            (Who::Connect, number(&other)),
        ],
    );
    // One of two files: rows for one call are alternatives.
    compare(
        &[Need::File(file.as_fd()), Need::File(other.as_fd())],
        &[(Who::File, number(&file)), (Who::File, number(&other))],
    );
}

#[test]
fn the_way_to_an_answer_is_a_search_not_a_walk() {
    let program = assemble(&rules(&[]));
    let longest = |calls: std::ops::RangeInclusive<u32>| {
        calls
            .map(|call| interpret(&program, OWN_ARCHITECTURE, call, [1; 6]).1)
            .max()
            .unwrap()
    };
    let spans = 2 * rules(&[]).len() + 1;
    // Architecture, number, search, at most four instructions for arguments, answer.
    assert!(longest(0..=1024) <= 2 + 1 + spans.ilog2() + 1 + 4 + 1);
}

#[test]
fn what_must_never_be_possible_stands_nowhere_in_the_table() {
    let never = [
        libc::SYS_openat,
        libc::SYS_socket,
        libc::SYS_sendmsg,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_mprotect,
        libc::SYS_ptrace,
        libc::SYS_kill,
        libc::SYS_ioctl,
        libc::SYS_prctl,
        libc::SYS_setuid,
        libc::SYS_dup3,
        libc::SYS_io_uring_setup,
    ];
    let calls = || TABLE.iter().flat_map(|row| row.calls);
    assert!(calls().all(|call| !never.contains(call)));
}

const PARTIES: [Party; 3] = [Party::Resolver, Party::Resident, Party::Program];

/// The limits of a call for a party.
fn limits_of(party: Party, call: u32) -> Vec<&'static Limit> {
    let own = LIMITS.iter().filter(|limit| limit.parties.contains(&party));
    own.filter(|limit| limit.calls.contains(&call.into()))
        .collect()
}

#[test]
fn a_call_is_answered_as_its_limit_says() {
    for party in PARTIES {
        let program = assemble_limits(party);
        assert!(program.len() < 1024, "{}", program.len());
        let flags = [0x1_0000, 0x1000_0000 | 17, 0x7e02_0000, 0x5961_6d61, 0o101];
        let mut known = arguments(3);
        known.extend(flags.map(|flag| [flag; 6]));
        let is_listed = |call| !limits_of(party, call).is_empty();
        compare_program(&program, &known, is_listed, |call, args| {
            let limits = limits_of(party, call);
            assert!(
                limits.len() <= 1,
                "call {call} has two limits for {party:?}"
            );
            let Some(limit) = limits.first() else {
                return if call < FIRST_UNKNOWN {
                    ALLOW
                } else {
                    NO_SUCH_CALL
                };
            };
            let mut checks = limit.unless.iter();
            let pid = std::process::id();
            match limit.failure {
                _ if !limit.unless.is_empty()
                    && checks.all(|&check| holds(check, args, 0, pid)) =>
                {
                    ALLOW
                }
                Failure::NotPermitted => NOT_PERMITTED,
                Failure::NoSuchCall => NO_SUCH_CALL,
            }
        });
    }
}

/// A child's filter applies in addition to the resident process's, which must not allow less.
#[test]
fn the_resident_process_may_do_what_its_children_need() {
    let resident = assemble_limits(Party::Resident);
    let null = File::open("/dev/null").unwrap();
    let held = u32::try_from(null.as_raw_fd()).unwrap();
    let child = assemble(&rules(&[
        Need::File(null.as_fd()),
        Need::Unlink(null.as_fd()),
        Need::Connect(null.as_fd(), LENGTH),
        Need::Wait(Pid::from_raw(i32::try_from(held).unwrap())),
    ]));
    let own = std::process::id();
    for call in 0..=1024 {
        for args in arguments(held) {
            let trapped = interpret(&child, OWN_ARCHITECTURE, call, args).0 == TRAP;
            let (answer, _) = interpret(&resident, OWN_ARCHITECTURE, call, args);
            assert!(trapped || answer == ALLOW, "call {call} {args:x?} {own}");
        }
    }
    // The calls of a child that is started and looks a name up.
    let filter = [22, 2, 0, 0, 0, 0];
    for (call, args) in [
        (libc::SYS_clone, [0x0120_0011, 0, 0, 0, 0, 0]),
        (libc::SYS_prctl, [1, 15, 0, 0, 0, 0]),
        (libc::SYS_prctl, [38, 1, 0, 0, 0, 0]),
        (libc::SYS_prctl, filter),
        (libc::SYS_close_range, [3, 0xffff_ffff, 0, 0, 0, 0]),
        (libc::SYS_landlock_create_ruleset, [1, 8, 0, 0, 0, 0]),
        (libc::SYS_landlock_restrict_self, [3, 0, 0, 0, 0, 0]),
        (libc::SYS_kill, [77, 9, 0, 0, 0, 0]),
        (libc::SYS_kill, [77, 15, 0, 0, 0, 0]),
        (libc::SYS_accept4, [6, 0, 0, 0, 0, 0]),
    ] {
        let call = u32::try_from(call).unwrap();
        let (answer, _) = interpret(&resident, OWN_ARCHITECTURE, call, args);
        assert_eq!(answer, ALLOW, "call {call} {args:x?}");
    }
}

/// The calls that the C library's resolver and the libraries of name services were seen to make.
#[test]
fn a_resolver_may_start_threads_map_libraries_and_talk_to_daemons() {
    let program = assemble_limits(Party::Resolver);
    let thread = 0x003d_0f00;
    for (call, args) in [
        (libc::SYS_clone, [thread, 0, 0, 0, 0, 0]),
        (libc::SYS_openat, [0xffff_ff9c, 1, 0o2_000_000, 0, 0, 0]),
        (libc::SYS_mmap, [0, 4096, 5, 2, 3, 0]),
        (libc::SYS_mprotect, [0, 4096, 1, 0, 0, 0]),
        (libc::SYS_socket, [1, 0o2_004_001, 0, 0, 0, 0]),
        (libc::SYS_socket, [2, 0o2_004_002, 0, 0, 0, 0]),
        (libc::SYS_socket, [16, 0o2_000_003, 0, 0, 0, 0]),
        (libc::SYS_bind, [3, 1, 12, 0, 0, 0]),
        (libc::SYS_connect, [3, 1, 16, 0, 0, 0]),
        (libc::SYS_sendmmsg, [3, 1, 2, 0x4000, 0, 0]),
        (libc::SYS_recvmsg, [3, 1, 0, 0, 0, 0]),
        (libc::SYS_futex, [1, 0, 0, 0, 0, 0]),
        (libc::SYS_getrandom, [1, 4, 0, 0, 0, 0]),
        (libc::SYS_memfd_create, [1, 1, 0, 0, 0, 0]),
        (libc::SYS_prctl, [15, 1, 0, 0, 0, 0]),
        (libc::SYS_ioctl, [3, 0x541b, 1, 0, 0, 0]),
        (libc::SYS_fcntl, [3, 3, 0, 0, 0, 0]),
        (libc::SYS_prlimit64, [0, 7, 0, 1, 0, 0]),
    ] {
        let call = u32::try_from(call).unwrap();
        let (answer, _) = interpret(&program, OWN_ARCHITECTURE, call, args);
        assert_eq!(answer, ALLOW, "call {call} {args:x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// More rules than the table has: jumps out of reach get inserted jumps.
    #[test]
    fn any_set_of_rules_becomes_a_program_that_agrees(
        mut calls in proptest::collection::vec((0..1200u32, 0..6usize), 0..600),
        held in 0..4u32,
    ) {
        const CHECKS: [&[Check]; 6] = [
            &[],
            &[Check::Held(0)],
            &[Check::Null(4), Check::Without(2, 4)],
            &[Check::OwnPid(1), Check::Among(2, &[6, 8])],
            &[Check::Positive(0), Check::OwnPid(1)],
            &[Check::Held(0), Check::Length(2)],
        ];
        calls.sort_unstable();
        let rules: Vec<Rule> = calls
            .iter()
            .map(|&(call, kind)| Rule { call, checks: CHECKS[kind], held, length: LENGTH, pid: 9 })
            .collect();
        let program = assemble(&rules);
        for call in 0..=1201 {
            for args in [[0; 6], [1, 0, LENGTH.into(), 0, 0, 0], [1, 9, 6, 0, 0, 0], [1, 9, 8, 0, 0, 0], [2, 9, 4, 0, 1 << 32, 0], [3, 0, 4, 0, 1, 0], [1 << 31, 9, 0, 0, 0, 0]] {
                let allowed = rules.iter().filter(|rule| rule.call == call).any(|rule| {
                    rule.checks.iter().all(|&check| holds(check, args, rule.held, rule.pid))
                });
                let (answer, _) = interpret(&program, OWN_ARCHITECTURE, call, args);
                prop_assert_eq!(answer, if allowed { ALLOW } else { TRAP }, "call {}", call);
            }
        }
    }
}
