//! HTTP over raw sockets: what no client library would send, and what came back.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::Result;

const PATIENCE: Duration = Duration::from_secs(8);

/// What came back over a raw socket; a status of 0 is a connection that was closed without a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A connection that stays open between two requests.
pub struct Connection(TcpStream);

impl Connection {
    /// To `127.0.0.1:PORT`.
    pub fn open(address: &str) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    pub fn send(&mut self, part: &[u8]) -> Result<()> {
        Ok(self.0.write_all(part)?)
    }

    /// Reads one answer, until the connection ends or nothing comes.
    pub fn answer(&mut self) -> RawAnswer {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while let Ok(read) = self.0.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..read]);
            if read == 0 || is_whole(&bytes) {
                break;
            }
        }
        parse(&bytes)
    }

    /// Sends a request and reads its answer; the connection goes on afterwards.
    pub fn ask(&mut self, request: &[u8]) -> RawAnswer {
        self.send(request).map(|()| self.answer()).unwrap_or_default()
    }

    /// The other side has neither said anything nor closed.
    pub fn is_waiting(&self) -> bool {
        let mut byte = [0];
        self.0.set_nonblocking(true).is_ok()
            && self.0.peek(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Sends the parts one after the other, on a connection of their own, and reads one answer.
pub fn exchange(address: &str, parts: &[&[u8]]) -> RawAnswer {
    let Ok(mut connection) = Connection::open(address) else { return RawAnswer::default() };
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            std::thread::sleep(Duration::from_millis(150));
        }
        // The server may have answered and closed already; what it said is still to be read.
        if connection.send(part).is_err() {
            break;
        }
    }
    let answer = connection.answer();
    connection.0.shutdown(Shutdown::Both).ok();
    answer
}

fn is_whole(bytes: &[u8]) -> bool {
    let answer = parse(bytes);
    let length = answer.head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| answer.body.len() >= length)
}

fn parse(bytes: &[u8]) -> RawAnswer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    RawAnswer {
        status: status.unwrap_or(0),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
