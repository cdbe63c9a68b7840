//! Replies as they come, made such that suppaftp takes them for what they are (RFC 959 section 4.2):
//! a reply of several lines ends with the line that begins with its code and a space, whatever other
//! codes its inner lines begin with; a line may be a code and nothing else; bytes that are no ASCII
//! do not keep a port from being read. Nothing is kept back but the beginning of a line.

/// Bytes after which it is known what a line is.
const HEAD: usize = 4;

/// One control connection's replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// The beginning of a line of which it is not known yet what it is.
    head: Vec<u8>,
    /// The rest of a line goes as it comes.
    passing: bool,
    /// The code of the reply, between its first line and its last.
    code: Option<[u8; 3]>,
    /// Whether the current line may hold an address.
    address: bool,
    /// Ready to be read.
    ready: Vec<u8>,
}

impl Replies {
    /// Takes what came.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    if !self.passing {
                        self.begin_line(true);
                    }
                    self.ready.extend_from_slice(b"\r\n");
                    self.passing = false;
                }
                // Of the line's end; the LF tells it.
                b'\r' => {}
                byte if self.passing => self.pass(*byte),
                byte => {
                    self.head.push(*byte);
                    if self.head.len() == HEAD {
                        self.begin_line(false);
                    }
                }
            }
        }
    }

    /// Nothing more comes: what was kept back is all there is.
    pub(super) fn end(&mut self) {
        self.ready.append(&mut self.head);
    }

    /// Hands out what is ready.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.ready[..count]);
        self.ready.drain(..count);
        count
    }

    /// Enough of a line is there, or all of it.
    fn begin_line(&mut self, whole: bool) {
        let head = std::mem::take(&mut self.head);
        let code = head
            .first_chunk::<3>()
            .filter(|code| code.iter().all(u8::is_ascii_digit))
            .copied();
        let goes_on = head.get(3) == Some(&b'-');
        let ends = head.get(3).is_none_or(|mark| *mark == b' ');
        match (self.code, code) {
            (None, Some(code)) if goes_on => self.code = Some(code),
            (Some(open), Some(code)) if ends && code == open => self.code = None,
            // An inner line: the space tells that it is none of the ends.
            (Some(_), Some(_)) => self.ready.push(b' '),
            _ => {}
        }
        self.address = matches!(code.as_ref(), Some(b"227" | b"229"));
        self.passing = !whole;
        head.iter().for_each(|byte| self.pass(*byte));
        if whole && head.len() == 3 && code.is_some() {
            self.ready.push(b' ');
        }
    }

    fn pass(&mut self, byte: u8) {
        let foreign = self.address && !byte.is_ascii();
        self.ready.push(if foreign { b'?' } else { byte });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(parts: &[&[u8]]) -> String {
        let mut replies = Replies::default();
        parts.iter().for_each(|part| replies.take(part));
        replies.end();
        let mut buffer = vec![0; 4096];
        let count = replies.read(&mut buffer);
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn inner_lines_are_told_from_the_last_one() {
        let odd = "220-Welcome\r\n550 is no error here\r\n220-nor the end\r\n421-neither\r\n\
                   226\r\n 220 nor this\r\n\r\n220 Ready\r\n";
        let told = "220-Welcome\r\n 550 is no error here\r\n 220-nor the end\r\n 421-neither\r\n \
                    226 \r\n 220 nor this\r\n\r\n220 Ready\r\n";
        assert_eq!(read(&[odd.as_bytes()]), told);
    }

    #[test]
    fn what_is_as_the_book_has_it_stays_as_it_is() {
        let good = "220 a\r\n211-Features:\r\n SIZE\r\n211 End\r\n550 no\r\n221 Bye";
        assert_eq!(read(&[good.as_bytes()]), good);
    }

    #[test]
    fn short_and_foreign_replies_can_be_read() {
        assert_eq!(read(&[b"226\n250\r\n"]), "226 \r\n250 \r\n");
        assert_eq!(
            read(&[b"229 \xe9tendu (|||5|)\n"]),
            "229 ?tendu (|||5|)\r\n"
        );
        assert_eq!(read(&[b"220 \xe9"]), "220 \u{fffd}");
        assert_eq!(read(&[b"22"]), "22");
    }

    proptest! {
        /// In whatever pieces it comes.
        #[test]
        fn pieces_make_no_difference(lines in prop::collection::vec("[0-9 a-z\r-]{0,8}", 0..8), cut in 0usize..64) {
            let text = lines.join("\n") + "\n";
            let cut = cut.min(text.len());
            let (a, b) = text.as_bytes().split_at(cut);
            prop_assert_eq!(read(&[a, b]), read(&[text.as_bytes()]));
        }
    }
}
