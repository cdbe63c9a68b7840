//! How far one upload attempt came, and what that means when it ended without a clear result
//! ("In doubt"). The evidence is the attempt's own temp name, never the size of what stands under
//! the final name: that may be yesterday's file, or the consumer may have taken ours. Only where a
//! file is sent straight under its final name (`publish = "direct"`) there is no other evidence;
//! there the size decides, and only after a 226.

/// The last irreversible step that an attempt had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// No STOR was sent: the server knows nothing of this attempt.
    Opened = 0,
    /// STOR was sent, the file is not complete and verified.
    Sending = 1,
    /// Complete and verified; the rename to the final name may have been sent.
    Publishing = 2,
    /// The 250 to RNTO was read, or a stored file was verified: it stands under its final name. Its
    /// marker, where the route has one, may be missing.
    Published = 3,
    /// Its marker was stored as well.
    Marked = 4,
    /// STOR was sent straight under the final name: what stands there may be a part.
    Storing = 5,
    /// The same, and its 226 was read; its size was not seen yet.
    Stored = 6,
    /// `Publishing`, and a DELE of the final name may have been sent and not answered. So the
    /// journal says; the attempt itself is `Publishing`.
    Replacing = 7,
}

impl Stage {
    /// The stage with this number; unknown numbers count as the most doubtful one.
    pub fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Opened,
            1 => Self::Sending,
            3 => Self::Published,
            4 => Self::Marked,
            5 => Self::Storing,
            6 => Self::Stored,
            7 => Self::Replacing,
            _ => Self::Publishing,
        }
    }

    /// What the successor has to do before any further work on that final name.
    pub fn remedy(self) -> Remedy {
        match self {
            Self::Opened => Remedy::Nothing,
            Self::Sending => Remedy::TakeAway,
            Self::Publishing | Self::Replacing => Remedy::Ask,
            Self::Published | Self::Marked => Remedy::Delivered,
            Self::Storing => Remedy::SendAgain,
            Self::Stored => Remedy::AskSize,
        }
    }
}

/// What to do about an attempt in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing was left behind.
    Nothing,
    /// Not delivered: take the old temp name away, then send under a new token.
    TakeAway,
    /// Rename the old temp to a fresh name and see (`asked`).
    Ask,
    /// Delivered: act on it.
    Delivered,
    /// A part may stand under the final name: never delivered, sent again.
    SendAgain,
    /// It was stored under the final name: sent again if it is there in another size, else
    /// delivered.
    AskSize,
}

/// What the server said when the old temp was to be renamed to a fresh name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done (250).
    Renamed,
    /// Refused (550), and the old temp is not there.
    Absent,
    /// Anything else.
    Unclear,
}

/// What follows from the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It was not published yet: publish the renamed file.
    PublishFresh,
    /// It was published before.
    Delivered,
    /// Nobody knows: try again later.
    Later,
}

/// Resolves an attempt of stage `Publishing`.
pub fn asked(answer: Answer) -> Next {
    match answer {
        Answer::Renamed => Next::PublishFresh,
        Answer::Absent => Next::Delivered,
        Answer::Unclear => Next::Later,
    }
}

/// Bytes before the end of a partial file that are sent again: what came last may be damaged (a
/// machine that went down under the server, a write that did not come to its end).
pub const SEAM: u64 = 1 << 20;

/// The byte at which the rest of a file of `size` bytes is sent when the server has `found` bytes
/// of it; 0: from the start. More than there is to send is no part of this file.
pub fn resume_at(found: u64, size: u64) -> u64 {
    if found > size {
        0
    } else {
        found.saturating_sub(SEAM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server folder with one temp file and one final name, and a session that may die
    /// between any two steps, before or after the server executed the last one it sent.
    #[derive(Default, Clone)]
    struct Folder {
        temp: bool,
        published: u32,
    }

    proptest! {
        /// Wherever the first attempt dies, and whether or not the server executed its last
        /// command, the successor ends with exactly one publication.
        #[test]
        fn one_publication_wherever_the_attempt_dies(died_after in 0u8..4, executed: bool) {
            let mut folder = Folder::default();
            let mut stage = Stage::Opened;
            if died_after >= 1 {
                stage = Stage::Sending;
                folder.temp = died_after > 1 || executed;
            }
            if died_after >= 2 {
                stage = Stage::Publishing;
                if died_after > 2 || executed {
                    folder.temp = false;
                    folder.published += 1;
                }
            }
            if died_after >= 3 {
                stage = Stage::Published;
            }
            let send_again = |folder: &mut Folder| folder.published += 1;
            match stage.remedy() {
                Remedy::Nothing => send_again(&mut folder),
                Remedy::TakeAway => { folder.temp = false; send_again(&mut folder); }
                Remedy::Ask => {
                    let answer = if folder.temp { Answer::Renamed } else { Answer::Absent };
                    folder.temp = false;
                    match asked(answer) {
                        Next::PublishFresh => folder.published += 1,
                        Next::Delivered => {}
                        Next::Later => prop_assert!(false),
                    }
                }
                Remedy::Delivered => {}
                Remedy::SendAgain | Remedy::AskSize => prop_assert!(false),
            }
            prop_assert_eq!(folder.published, 1);
            prop_assert!(!folder.temp);
        }
    }

    proptest! {
        /// Whatever the server has, the rest written over it from there gives the file, and never
        /// less than the seam is written again.
        #[test]
        fn a_part_and_its_rest_are_the_file(found in 0..4 * SEAM, size in 0..3 * SEAM) {
            let at = resume_at(found, size);
            prop_assert!(at <= size && (at == 0 || found - at == SEAM));
            // Written from `at` to the end; a start truncates.
            let end = if at == 0 { size } else { found.max(size) };
            prop_assert_eq!(end, size);
        }
    }

    #[test]
    fn stages_keep_their_numbers() {
        for stage in [
            Stage::Opened,
            Stage::Sending,
            Stage::Publishing,
            Stage::Published,
            Stage::Marked,
            Stage::Storing,
            Stage::Stored,
            Stage::Replacing,
        ] {
            assert_eq!(Stage::from_u8(stage as u8), stage);
        }
    }
}
