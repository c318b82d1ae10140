//! The signals by which an administrator, a terminal or a parent ends a process, at each system call of a session that
//! writes a queue file.
//!
//! The process dies of the signal. What is in the queue then is whole and has mode 0700, or there is nothing; and it is
//! there if the client has heard `K`.

use std::sync::Mutex;

use crate::harness::dialogue::at_once;
use crate::harness::trace::Call;
use crate::judge::Phase;
use crate::matrix::Plan;
use crate::session::{Method, Seen};
use crate::table::Section;

/// Name and number.
const SIGNALS: [(&str, i32); 3] = [("TERM", 15), ("HUP", 1), ("INT", 2)];

/// How many sessions have ended with `K`, with mail of which the client has not heard, with nothing.
pub fn at_every_call() -> (usize, usize, usize) {
    let plan = Plan::new(Method::File, true);
    let calls = plan.calls.iter();
    let calls = calls.filter(|(call, phase, _)| *phase > Phase::Load && call.has_name());
    let mut cases = Vec::new();
    for (turn, (call, _, section)) in calls.enumerate() {
        if *section == Section::Serve {
            cases.extend(SIGNALS.map(|signal| (call, signal)));
        } else {
            // There is no file yet.
            cases.push((call, SIGNALS[turn % SIGNALS.len()]));
        }
    }
    let counts = Mutex::new((0, 0, 0));
    let failures = Mutex::new(Vec::new());
    at_once(cases.len(), |index| {
        let (call, (name, number)) = cases[index];
        let inject = format!("{}:signal={name}:when={}", call.name, call.number);
        let seen = plan.with(&inject);
        if let Err(broken) = judge(&seen, number) {
            let line = format!("{inject} {}: {broken}\n  {seen:?}", call.line);
            failures.lock().unwrap().push(line);
        }
        let mut counts = counts.lock().unwrap();
        match (seen.reply.is_empty(), seen.queued) {
            (false, _) => counts.0 += 1,
            (true, true) => counts.1 += 1,
            (true, false) => counts.2 += 1,
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    counts.into_inner().unwrap()
}

fn judge(seen: &Seen, signal: i32) -> Result<(), String> {
    // A signal that comes in the last call comes too late.
    if !["0".to_owned(), format!("signal {signal}")].contains(&seen.exit) {
        return Err(format!("ends by {}", seen.exit));
    }
    if !seen.left.is_empty() {
        return Err(format!("{:?} left in the queue", seen.left));
    }
    let reply = String::from_utf8_lossy(&seen.reply);
    if !reply.is_empty() && !reply.contains(":KOk") {
        return Err(format!("hears {reply}"));
    }
    if !reply.is_empty() && !seen.queued {
        return Err("K, and nothing is queued".to_owned());
    }
    let is_commit = |call: &Call| call.name == "fchmod" && call.line.contains(", 0700) = 0");
    if seen.calls.iter().any(is_commit) != seen.queued {
        return Err("mail has been removed".to_owned());
    }
    if seen.exit == "0" && reply.is_empty() {
        return Err("ends well without an answer".to_owned());
    }
    Ok(())
}
