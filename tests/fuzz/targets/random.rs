//! Seeded random inputs, and the tests that run a target over them and over its corpus.

use std::fmt::Display;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// How many random inputs each target gets in a test.
const INPUTS: u64 = 2000;

/// Numbers that look random, the same for the same seed (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// Up to `most` bytes of any value.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }

    /// Up to `most` of the pieces, one after the other.
    pub fn text(&mut self, most: usize, pieces: &[&str]) -> Vec<u8> {
        (0..self.below(most + 1))
            .flat_map(|_| pieces[self.below(pieces.len())].bytes())
            .collect()
    }

    /// Replaces, removes or repeats a few bytes, seldom any.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        while !bytes.is_empty() && self.below(3) == 0 {
            let at = self.below(bytes.len());
            match self.below(3) {
                0 => bytes[at] = self.byte(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
    }
}

/// Runs a target over its corpus, and over what `sample` makes.
pub fn run(name: &str, target: fn(&[u8]), sample: fn(&mut Random) -> Vec<u8>) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let program = format!("\"fuzz_targets/{name}.rs\"");
    assert!(manifest.contains(&program), "no fuzzer runs {name}");
    let corpus = package.join("corpus").join(name);
    let mut files = 0;
    for entry in fs::read_dir(&corpus).into_iter().flatten() {
        let path = entry.unwrap().path();
        attempt(target, &fs::read(&path).unwrap(), &path.display());
        files += 1;
    }
    assert!(files > 0, "no corpus in {}", corpus.display());
    for seed in 0..INPUTS {
        attempt(
            target,
            &sample(&mut Random::new(seed)),
            &format_args!("seed {seed}"),
        );
    }
}

/// Runs a target over one input, which is named where that fails.
fn attempt(target: fn(&[u8]), input: &[u8], name: &dyn Display) {
    assert!(catch_unwind(|| target(input)).is_ok(), "fails with {name}");
}
