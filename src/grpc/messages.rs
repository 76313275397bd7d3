//! Where the messages of a call begin and end ("Length-Prefixed-Message" in the protocol).

/// Bytes before a message: a flag, and its length in four bytes.
const PREFIX: u8 = 5;

/// Follows the messages of a body as it passes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Messages {
    /// Bytes of a prefix that have passed.
    prefix: u8,
    /// Their length as far as it is known; then bytes that are left of the message.
    left: u32,
}

impl Messages {
    /// More of the body has passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.prefix == PREFIX {
                let passed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(passed..).unwrap_or_default();
                self.left -= u32::try_from(passed).unwrap_or(self.left);
            } else {
                self.left = if self.prefix == 0 { 0 } else { self.left << 8 | u32::from(*first) };
                self.prefix += 1;
                bytes = rest;
            }
            if self.prefix == PREFIX && self.left == 0 {
                self.prefix = 0;
            }
        }
    }

    /// Whether what has passed are whole messages.
    pub(super) fn are_whole(&self) -> bool {
        self.prefix == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_known_to_end_a_message_or_not() {
        // Two bytes, none, and three hundred.
        let mut body = vec![0, 0, 0, 0, 2, 7, 7, 1, 0, 0, 0, 0, 0, 0, 0, 1, 44];
        body.extend([0xff; 300]);
        let whole = [0, 7, 12, 317];
        let mut byte_by_byte = Messages::default();
        for end in 0..=body.len() {
            let mut at_once = Messages::default();
            at_once.pass(&body[..end]);
            assert_eq!(at_once.are_whole(), whole.contains(&end), "{end}");
            assert_eq!(byte_by_byte.are_whole(), whole.contains(&end), "{end}");
            byte_by_byte.pass(&body[end..(end + 1).min(body.len())]);
        }
    }
}
