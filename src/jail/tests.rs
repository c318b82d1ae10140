//! The filter program, run here as the kernel runs it, against the table read row by row.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::unistd::Pid;
use proptest::prelude::*;

use super::Need;
use super::filter::{
    JUMP, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, JUMP_SET, LOAD, OWN_ARCHITECTURE, RETURN, Rule,
    assemble, resident_rules, rules,
};
use super::table::{Check, TABLE, Who};
use crate::sys::seccomp::{FAIL, Instruction};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const X32: u32 = 0x4000_0000;
const I386: u32 = 0x4000_0003;

/// Runs a program as the kernel does; the answer, and how many instructions it took.
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
        Check::Among(n, numbers) => numbers.iter().any(|&number| low(n) == u64::from(number)),
        Check::Null(n) => args[n as usize] == 0,
        Check::Without(n, bits) => low(n) & u64::from(bits) == 0,
        Check::Positive(n) => (1..1 << 31).contains(&low(n)),
    }
}

/// The same question put to the table, row by row.
fn scan(needs: &[(Who, u32)], refusal: u32, call: u32, args: [u64; 6]) -> u32 {
    let allowed = TABLE.iter().any(|row| {
        row.why.holds_here()
            && row.calls.contains(&call.into())
            && needs.iter().any(|&(who, held)| {
                let holds = |&check: &Check| holds(check, args, held, std::process::id());
                row.who == who && row.checks.iter().all(holds)
            })
    });
    if allowed { ALLOW } else { refusal }
}

/// Argument lists that meet each check, and miss it by one bit in the lower and in the upper half.
fn arguments(held: u32) -> Vec<[u64; 6]> {
    let (held, pid) = (u64::from(held), u64::from(std::process::id()));
    let mut lists = Vec::new();
    let upper = [1 << 32, 1 << 63, 4 << 32, (1 << 32) | held];
    for value in (0..9)
        .chain([15, 24])
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

/// Holds the program for `needs` against the table's rows for `parties`.
fn compare(needs: &[Need<'_>], parties: &[(Who, u32)]) {
    let program = assemble(&rules(needs), TRAP);
    assert!(program.len() < 256, "{}", program.len());
    compare_program(&program, parties, TRAP);
}

/// Holds a program against the table's rows for `parties`, for every number that is a call or near one.
fn compare_program(program: &[Instruction], parties: &[(Who, u32)], refusal: u32) {
    let mut parties = parties.to_vec();
    parties.push((Who::Everybody, 0));
    let known: Vec<[u64; 6]> = parties
        .iter()
        .flat_map(|party| arguments(party.1))
        .collect();
    let calls = (0..=1024).chain([(1 << 31) - 1, 1 << 31, u32::MAX]);
    for call in calls.chain((0..=1024).map(|call| X32 | call)) {
        let listed = TABLE.iter().any(|row| row.calls.contains(&call.into()));
        let lists: &[[u64; 6]] = if listed {
            &known
        } else {
            &[[0; 6], [u64::MAX; 6]]
        };
        for &args in lists {
            let (answer, _) = interpret(program, OWN_ARCHITECTURE, call, args);
            assert_eq!(
                answer,
                scan(&parties, refusal, call, args),
                "call {call} {args:x?} {parties:?}"
            );
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
            Need::Connect(other.as_fd()),
        ],
        &[
            (Who::File, number(&file)),
            (Who::Unlink, number(&file)),
            (Who::Connect, number(&other)),
        ],
    );
    // Either of two files: rows for one call are alternatives.
    compare(
        &[Need::File(file.as_fd()), Need::File(other.as_fd())],
        &[(Who::File, number(&file)), (Who::File, number(&other))],
    );
}

#[test]
fn the_way_to_an_answer_is_a_search_not_a_walk() {
    let program = assemble(&rules(&[]), TRAP);
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
    let confined = || TABLE.iter().filter(|row| row.who != Who::Resident);
    assert!(confined().all(|row| row.calls.iter().all(|call| !never.contains(call))));
}

#[test]
fn the_resident_process_is_answered_as_the_table_says() {
    let program = assemble(&resident_rules(), FAIL);
    assert!(program.len() < 1024, "{}", program.len());
    compare_program(&program, &[(Who::Resident, 0)], FAIL);
}

/// A child's filter is put in force on top of the resident process's, and would be of no use if that had less.
#[test]
fn the_resident_process_may_do_what_its_children_need() {
    let resident = assemble(&resident_rules(), FAIL);
    let null = File::open("/dev/null").unwrap();
    let held = u32::try_from(null.as_raw_fd()).unwrap();
    let child = assemble(
        &rules(&[
            Need::File(null.as_fd()),
            Need::Unlink(null.as_fd()),
            Need::Connect(null.as_fd()),
            Need::Wait(Pid::from_raw(i32::try_from(held).unwrap())),
        ]),
        TRAP,
    );
    for call in 0..=1024 {
        for args in arguments(held) {
            if interpret(&child, OWN_ARCHITECTURE, call, args).0 == ALLOW {
                let (answer, _) = interpret(&resident, OWN_ARCHITECTURE, call, args);
                assert_eq!(answer, ALLOW, "call {call} {args:x?}");
            }
        }
    }
}

/// Programs, other processes, users, mounts, modules, namespaces, filters, files of other kinds.
const NOT_FOR_RESIDENTS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_clone3,
    libc::SYS_seccomp,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_memfd_create,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(not(target_env = "musl"))]
    libc::SYS_tkill,
];

#[test]
fn the_resident_process_cannot_start_programs_or_act_on_others() {
    let program = assemble(&resident_rules(), FAIL);
    let answer = |call: libc::c_long, args: [u64; 6]| {
        interpret(
            &program,
            OWN_ARCHITECTURE,
            u32::try_from(call).unwrap(),
            args,
        )
        .0
    };
    for &call in NOT_FOR_RESIDENTS {
        for args in arguments(3) {
            assert_eq!(answer(call, args), FAIL, "call {call}");
        }
    }
    let new_user = 0x1000_0000 | 17;
    for (call, args) in [
        (libc::SYS_kill, [0, 9]),
        (libc::SYS_kill, [0xffff_ffff, 9]),
        (libc::SYS_kill, [u64::MAX - 76, 9]),
        (libc::SYS_kill, [0, 15]),
        (libc::SYS_kill, [77, 10]),
        (libc::SYS_clone, [new_user, 0]),
        (libc::SYS_ioctl, [0, 0x5412]), // TIOCSTI
    ] {
        let [first, second] = args;
        assert_eq!(
            answer(call, [first, second, 0, 0, 0, 0]),
            FAIL,
            "{call} {args:x?}"
        );
    }
    assert_eq!(answer(libc::SYS_kill, [77, 9, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer(libc::SYS_kill, [77, 15, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer(libc::SYS_clone, [0x0120_0011, 0, 0, 0, 0, 0]), ALLOW);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Far more rules than the table has: jumps that do not reach get stepping stones.
    #[test]
    fn any_set_of_rules_becomes_a_program_that_agrees(
        mut calls in proptest::collection::vec((0..1200u32, 0..5usize), 0..600),
        held in 0..4u32,
    ) {
        const CHECKS: [&[Check]; 5] = [
            &[],
            &[Check::Held(0)],
            &[Check::Null(4), Check::Without(2, 4)],
            &[Check::OwnPid(1), Check::Among(2, &[6, 8])],
            &[Check::Positive(0), Check::OwnPid(1)],
        ];
        calls.sort_unstable();
        let rules: Vec<Rule> = calls
            .iter()
            .map(|&(call, kind)| Rule { call, checks: CHECKS[kind], held, pid: 9 })
            .collect();
        let program = assemble(&rules, TRAP);
        for call in 0..=1201 {
            for args in [[0; 6], [1, 9, 6, 0, 0, 0], [1, 9, 8, 0, 0, 0], [2, 9, 4, 0, 1 << 32, 0], [3, 0, 4, 0, 1, 0], [1 << 31, 9, 0, 0, 0, 0]] {
                let allowed = rules.iter().filter(|rule| rule.call == call).any(|rule| {
                    rule.checks.iter().all(|&check| holds(check, args, rule.held, rule.pid))
                });
                let (answer, _) = interpret(&program, OWN_ARCHITECTURE, call, args);
                prop_assert_eq!(answer, if allowed { ALLOW } else { TRAP }, "call {}", call);
            }
        }
    }
}
