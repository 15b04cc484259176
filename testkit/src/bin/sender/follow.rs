//! Reads a file or standard input line by line, and stays with a file that is rotated or begins anew.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::lines::Lines;

/// Pause at the end of a followed file.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A service and where it logs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    service: String,
    /// `None` is standard input.
    path: Option<PathBuf>,
}

/// Where a followed file is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    AtStart,
    AtEnd,
}

impl FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((service, path)) if !service.is_empty() && !path.is_empty() => {
                Ok(Self { service: service.to_owned(), path: (path != "-").then(|| path.into()) })
            }
            _ => Err(format!("`{text}` is not NAME=PATH")),
        }
    }
}

/// Reads in a thread of its own, because files and standard input block. It ends with its source,
/// at `stop`, or when nobody takes the events any more.
pub(crate) fn start(source: Source, begin: Begin, follow: bool, events: mpsc::Sender<Event>, stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut out = Out { service: source.service, lines: Lines::default(), events, stop };
        let read = match &source.path {
            None => out.copy(&mut io::stdin().lock()).map(|()| out.finish()),
            Some(path) if follow => out.follow(path, begin),
            Some(path) => File::open(path).and_then(|mut file| out.copy(&mut file)).map(|()| out.finish()),
        };
        if let Err(error) = read {
            eprintln!("{}: {error}", out.service);
        }
    });
}

struct Out {
    service: String,
    lines: Lines,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
}

impl Out {
    /// Sends what is left to read.
    fn copy(&mut self, from: &mut impl Read) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        while !self.stopped() {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            for line in self.lines.take(&buffer[..read]) {
                self.send(&line);
            }
        }
        Ok(())
    }

    /// The last line may have no end.
    fn finish(&mut self) {
        if let Some(line) = self.lines.rest() {
            self.send(&line);
        }
    }

    fn follow(&mut self, path: &Path, begin: Begin) -> io::Result<()> {
        let mut open: Option<File> = None;
        let mut begin = begin;
        while !self.stopped() {
            if let Some(file) = &mut open {
                self.copy(file)?;
                match next(&file.metadata()?, file.stream_position()?, path.metadata().ok().as_ref()) {
                    Next::Wait => {}
                    Next::FromStart => {
                        file.rewind()?;
                        self.lines.rest();
                        continue;
                    }
                    Next::OtherFile => {
                        self.copy(file)?;
                        self.finish();
                        open = None;
                        continue;
                    }
                }
            } else if let Ok(mut file) = File::open(path) {
                if begin == Begin::AtEnd {
                    file.seek(SeekFrom::End(0))?;
                }
                open = Some(file);
                continue;
            }
            // A file that comes later, or after this one, is read from its start.
            begin = Begin::AtStart;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn send(&self, line: &str) {
        let event = Event::of_line(&self.service, line, OffsetDateTime::now_utc());
        // Nobody receives only when the sender ends.
        if self.events.blocking_send(event).is_err() {
            self.stop.cancel();
        }
    }

    fn stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// What to do at the end of a followed file.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait,
    FromStart,
    OtherFile,
}

/// `named` is what the path names now; nothing for a moment while a file is rotated.
fn next(open: &Metadata, position: u64, named: Option<&Metadata>) -> Next {
    match named {
        Some(named) if (named.dev(), named.ino()) != (open.dev(), open.ino()) => Next::OtherFile,
        _ if open.len() < position => Next::FromStart,
        _ => Next::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    #[test]
    fn a_source_is_a_service_and_a_path() {
        assert_eq!("api=/x=y".parse(), Ok(Source { service: "api".into(), path: Some("/x=y".into()) }));
        assert_eq!("api=-".parse(), Ok(Source { service: "api".into(), path: None }));
        for bad in ["api", "=x", "api="] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_followed_file_may_grow_begin_anew_and_be_rotated() {
        let folder = std::env::temp_dir().join(format!("loggerhub-sender-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        fs::write(&path, "old\n").unwrap();
        let (events, mut read) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let source = Source { service: "api".into(), path: Some(path.clone()) };
        start(source, Begin::AtStart, true, events, stop.clone());
        assert_eq!(read.recv().await.unwrap().message, "old");

        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"grown, and not").unwrap();
        file.write_all(b" ended\n").unwrap();
        assert_eq!(read.recv().await.unwrap().message, "grown, and not ended");

        file.set_len(0).unwrap();
        file.write_all(b"anew\n").unwrap();
        assert_eq!(read.recv().await.unwrap().message, "anew");

        fs::rename(&path, folder.join("log.1")).unwrap();
        file.write_all(b"late\n").unwrap();
        assert_eq!(read.recv().await.unwrap().message, "late");
        fs::write(&path, "next\n").unwrap();
        assert_eq!(read.recv().await.unwrap().message, "next");

        stop.cancel();
        assert!(read.recv().await.is_none(), "the thread ends");
        fs::remove_dir_all(folder).unwrap();
    }
}
