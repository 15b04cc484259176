//! Bytes as they are read, cut into lines.

/// Longest line; the rest of a longer one comes as a line of its own. Ingest takes 1 MiB an event,
/// and a line may stand in it twice, escaped.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// The line that has begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that end within `bytes`, without their line ends; empty ones are left out.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_LINE_BYTES) {
                if self.begun.len() + part.len() > MAX_LINE_BYTES {
                    lines.extend(self.rest());
                }
                self.begun.extend_from_slice(part);
            }
            if piece.ends_with(b"\n") {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// What has begun, ended or not: for the end of a file.
    pub(crate) fn rest(&mut self) -> Option<String> {
        let begun = std::mem::take(&mut self.begun);
        let line = String::from_utf8_lossy(&begun);
        let line = line.trim_end_matches(['\n', '\r']);
        (!line.trim().is_empty()).then(|| line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_however_it_is_read() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"a\r\n\nb"), ["a"]);
        assert_eq!(lines.take(b"c"), [""; 0]);
        assert_eq!(lines.take(b"\n \nd\xff"), ["bc"]);
        assert_eq!(lines.rest().as_deref(), Some("d\u{fffd}"));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::default();
        let cut: Vec<usize> = lines.take(&vec![b'x'; MAX_LINE_BYTES * 2 + 5]).iter().map(String::len).collect();
        assert_eq!(cut, [MAX_LINE_BYTES, MAX_LINE_BYTES]);
        assert_eq!(lines.rest().map(|line| line.len()), Some(5));
    }
}
