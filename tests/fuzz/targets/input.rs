//! What the bytes of a fuzzer stand for: first a few choices, then data.

/// The bytes that are left.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte, 0 where there is none.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_at(self.0.len().min(1));
        self.0 = rest;
        first.first().copied().unwrap_or(0)
    }

    /// Whether the next byte is odd.
    pub fn bit(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One of the choices.
    pub fn choice<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()].clone()
    }

    /// Data with its length, two bytes, in front; as much of it as there is.
    pub fn data(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (data, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        data
    }
}
