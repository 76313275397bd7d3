//! Where the frames of a WebSocket end (RFC 6455 section 5.2). What is in them is none of our business.

/// The opcode of a frame that closes (RFC 6455 section 5.5.1).
const CLOSE: u8 = 8;

/// Follows the frames of one direction, however they are cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Frames {
    place: Place,
    /// Whether the present frame closes.
    closing: bool,
    /// Whether a frame that closes has ended.
    closed: bool,
}

/// Where in a frame we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before one.
    #[default]
    Between,
    /// Behind its first byte.
    Length,
    /// Within a longer length: so many bytes of it are to come, what it said so far, and whether a mask follows.
    Longer { left: u8, length: u64, masked: bool },
    /// Before so many bytes of mask and payload.
    Rest(u64),
}

impl Frames {
    /// Whether another frame may be put in here.
    pub(super) fn is_between(&self) -> bool {
        self.place == Place::Between
    }

    /// Whether a frame has closed this direction: then nothing may follow (RFC 6455 section 5.5.1).
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Goes past a piece.
    pub(super) fn follow(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            piece = piece.get(self.finish(piece)..).unwrap_or_default();
        }
    }

    /// Goes up to the end of the present frame, or of the next one if there is none; gives how much of the piece that is.
    pub(super) fn finish(&mut self, piece: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = piece.get(at) {
            self.place = match self.place {
                Place::Rest(left) => {
                    let step = (piece.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                    at += step;
                    rest(left - step as u64)
                }
                place => {
                    at += 1;
                    self.head(place, *byte)
                }
            };
            if self.place == Place::Between {
                self.closed |= self.closing;
                break;
            }
        }
        at
    }

    /// One byte of what is before mask and payload.
    fn head(&mut self, place: Place, byte: u8) -> Place {
        match place {
            Place::Between => {
                self.closing = byte & 0x0f == CLOSE;
                Place::Length
            }
            Place::Length => {
                let masked = byte & 0x80 != 0;
                match byte & 0x7f {
                    126 => Place::Longer { left: 2, length: 0, masked },
                    127 => Place::Longer { left: 8, length: 0, masked },
                    length => behind_length(u64::from(length), masked),
                }
            }
            Place::Longer { left, length, masked } => {
                let length = length << 8 | u64::from(byte);
                match left {
                    1 => behind_length(length, masked),
                    left => Place::Longer { left: left - 1, length, masked },
                }
            }
            Place::Rest(left) => rest(left),
        }
    }
}

fn behind_length(length: u64, masked: bool) -> Place {
    rest(length.saturating_add(if masked { 4 } else { 0 }))
}

fn rest(left: u64) -> Place {
    if left == 0 { Place::Between } else { Place::Rest(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame with this first byte, its length told in `form` bytes: 1, 3 or 9.
    fn frame(first: u8, form: usize, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match form {
            1 => bytes.push(masked | u8::try_from(payload.len()).unwrap()),
            3 => {
                bytes.push(masked | 126);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        bytes.extend(payload);
        bytes
    }

    /// The same bytes again, whose meaning as a head would be another one.
    fn payload(length: usize) -> Vec<u8> {
        [0x88, 0x02, 0xff, 0x7e].into_iter().cycle().take(length).collect()
    }

    #[test]
    fn frames_of_every_form_end_where_they_say() {
        for (form, length) in [(1, 0), (1, 1), (1, 125), (3, 0), (3, 126), (3, 65_535), (9, 0), (9, 65_536)] {
            for mask in [None, Some([0x88, 0, 0, 1])] {
                let bytes = frame(0x82, form, mask, &payload(length));
                let mut frames = Frames::default();
                assert_eq!(frames.finish(&[&bytes[..], b"next"].concat()), bytes.len(), "{form} {length}");
                assert!(frames.is_between() && !frames.is_closed());
            }
        }
    }

    #[test]
    fn a_frame_may_come_byte_by_byte() {
        for form in [1, 3, 9] {
            let bytes = frame(0x01, form, Some([1, 2, 3, 4]), &payload(100));
            let mut frames = Frames::default();
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(frames.finish(&[*byte]), 1);
                assert_eq!(frames.is_between(), at + 1 == bytes.len(), "{form} at {at}");
            }
        }
    }

    #[test]
    fn a_frame_that_closes_is_noticed_when_it_has_ended() {
        let (ping, close) = (frame(0x89, 1, None, b"?"), frame(0x88, 1, None, &[3, 232]));
        let mut frames = Frames::default();
        frames.follow(&ping);
        assert!(!frames.is_closed());
        frames.follow(&close[..3]);
        assert!(!frames.is_closed() && !frames.is_between());
        frames.follow(&close[3..]);
        assert!(frames.is_closed());
        frames.follow(&ping);
        assert!(frames.is_closed(), "whatever is sent behind it");
        let mut empty = Frames::default();
        empty.follow(&frame(0x88, 1, None, b""));
        assert!(empty.is_closed());
    }

    #[test]
    fn the_longest_length_does_not_overflow() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]);
        frames.follow(&[0; 100_000]);
        assert!(!frames.is_between());
    }

    proptest! {
        /// However a stream is cut, its frames end in the same places.
        #[test]
        fn cuts_change_nothing(
            all in prop::collection::vec(
                (0_u8..16, 0_usize..3, any::<Option<[u8; 4]>>(), prop::collection::vec(any::<u8>(), 0..125)), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut ends = Vec::new();
            let mut bytes = Vec::new();
            for (opcode, form, mask, payload) in &all {
                bytes.extend(frame(0x80 | opcode, [1, 3, 9][*form], *mask, payload));
                ends.push(bytes.len());
            }
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let mut frames = Frames::default();
            for cut in places.windows(2) {
                frames.follow(&bytes[cut[0]..cut[1]]);
                prop_assert_eq!(frames.is_between(), cut[1] == 0 || ends.contains(&cut[1]));
            }
            prop_assert_eq!(frames.is_closed(), all.iter().any(|(opcode, ..)| *opcode == 8));
        }
    }
}
