//! What the guest sends through a virtio port: the script's output with two kinds of marks of the harness in between.
//!
//! A mark is a line that starts with the byte 0x1e and a word drawn for this run, so no program can print one by
//! chance. Everything else is passed on at once, partial lines included. Written by `tests/vm/init.sh`.

/// Starts a mark (ASCII "record separator").
const MARK: u8 = 0x1e;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The script starts now.
    Ready,
    /// The script has ended with this code; nothing follows on this port.
    Exit(i32),
}

/// Takes one port's bytes apart.
pub(crate) struct Demux {
    word: String,
    held: Vec<u8>,
}

impl Demux {
    /// For marks with this word.
    pub(crate) fn new(word: &str) -> Self {
        Demux { word: word.to_owned(), held: Vec::new() }
    }

    /// Takes in bytes; gives the script's bytes among them to `pass` and returns the marks.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut pass: impl FnMut(&[u8])) -> Vec<Mark> {
        self.held.extend_from_slice(bytes);
        let mut marks = Vec::new();
        loop {
            let start = self.held.iter().position(|&byte| byte == MARK).unwrap_or(self.held.len());
            if start > 0 {
                pass(&self.held[..start]);
                self.held.drain(..start);
            }
            let Some(end) = self.held.iter().position(|&byte| byte == b'\n') else { break };
            match self.parse(&self.held[1..end]) {
                Some(mark) => {
                    marks.push(mark);
                    self.held.drain(..=end);
                }
                None => {
                    // The program printed this byte itself.
                    pass(&self.held[..1]);
                    self.held.drain(..1);
                }
            }
        }
        marks
    }

    /// The port is closed: what was held back as a possible mark was none.
    pub(crate) fn finish(&mut self, mut pass: impl FnMut(&[u8])) {
        pass(&self.held);
        self.held.clear();
    }

    fn parse(&self, line: &[u8]) -> Option<Mark> {
        let rest = std::str::from_utf8(line).ok()?.strip_prefix(&self.word)?;
        match rest.strip_prefix(' ')?.split_once(' ') {
            None if rest == " ready" => Some(Mark::Ready),
            Some(("exit", code)) => code.parse().ok().map(Mark::Exit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds in pieces of `size` bytes.
    fn take_apart(input: &[u8], size: usize) -> (String, Vec<Mark>) {
        let mut demux = Demux::new("w0rd");
        let mut text = Vec::new();
        let mut marks = Vec::new();
        for piece in input.chunks(size) {
            marks.extend(demux.feed(piece, |bytes| text.extend_from_slice(bytes)));
        }
        demux.finish(|bytes| text.extend_from_slice(bytes));
        (String::from_utf8(text).unwrap(), marks)
    }

    #[test]
    fn marks_are_taken_out_however_the_bytes_arrive() {
        let input = b"\x1ew0rd ready\ntest a ... ok\nno newline\x1ew0rd exit 101\n";
        for size in [1, 2, 7, input.len()] {
            let (text, marks) = take_apart(input, size);
            assert_eq!(text, "test a ... ok\nno newline");
            assert_eq!(marks, [Mark::Ready, Mark::Exit(101)]);
        }
    }

    #[test]
    fn what_is_not_a_mark_is_passed_on() {
        let input = "a\x1e\x1ew0rd what\nb\x1eother ready\n\x1ew0rd exit x\ntail\x1ew0r";
        let (text, marks) = take_apart(input.as_bytes(), 3);
        assert_eq!(text, input);
        assert_eq!(marks, []);
    }

    #[test]
    fn a_partial_line_is_passed_on_at_once() {
        let mut text = Vec::new();
        let marks = Demux::new("w0rd").feed(b"test a ... ", |bytes| text.extend_from_slice(bytes));
        assert_eq!((text.as_slice(), marks.as_slice()), (&b"test a ... "[..], &[][..]));
    }
}
