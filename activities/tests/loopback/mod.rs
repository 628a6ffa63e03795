//! Loopback: a server of bytes on this machine. What it is asked is written down; what it answers is up to the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    #[allow(dead_code, reason = "each of the tests that share this file uses a part of it")]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// How an answer goes over the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each of the tests that share this file uses a part of it")]
pub enum Delivery {
    /// Whole, with its length.
    Whole,
    /// Whole, in chunks.
    Chunked,
    /// So many bytes of it, and the line drops.
    Cut(usize),
    /// Followed by more, without end.
    Endless,
    /// The head, and then nothing for as long as the client stays.
    Stalled,
    /// The line drops, and nothing is answered.
    Silent,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub delivery: Delivery,
}

impl Answer {
    #[allow(dead_code, reason = "each of the tests that share this file uses a part of it")]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
            delivery: Delivery::Whole,
        }
    }

    #[allow(dead_code, reason = "each of the tests that share this file uses a part of it")]
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.as_bytes().to_vec(), delivery: Delivery::Whole }
    }

    #[allow(dead_code, reason = "each of the tests that share this file uses a part of it")]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Answers = Box<dyn FnMut(&Asked) -> Answer + Send>;

struct Shared {
    answers: Mutex<Answers>,
    asked: Mutex<Vec<Asked>>,
    sent_most: AtomicUsize,
}

/// A server that lives as long as its runtime.
#[derive(Clone)]
pub struct Loopback {
    pub url: String,
    shared: Arc<Shared>,
}

/// An endless answer ends here at the latest, so that a client without a bound is seen and not waited for.
const ENDLESS: usize = 64 << 20;

impl Loopback {
    /// Answers each request with what this says.
    pub async fn start(answers: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answers: Mutex::new(Box::new(answers)),
            asked: Mutex::default(),
            sent_most: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((line, _)) = listener.accept().await {
                tokio::spawn(serve(line, serving.clone()));
            }
        });
        Self { url, shared }
    }

    /// All that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many bytes of one answer went out at most.
    #[allow(dead_code, reason = "each of the tests that share this file uses a part of it")]
    pub fn sent_most(&self) -> usize {
        self.shared.sent_most.load(Ordering::Relaxed)
    }
}

async fn serve(mut line: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let asked = read(&mut line).await?;
    let answer = {
        let mut answers = shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers(&asked)
    };
    let is_head = asked.method == "HEAD";
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    if answer.delivery == Delivery::Silent {
        return None;
    }
    let mut head = format!("HTTP/1.1 {} Answer\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match answer.delivery {
        Delivery::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Delivery::Endless => {}
        _ => head.push_str(&format!("content-length: {}\r\n", answer.body.len())),
    }
    head.push_str("\r\n");
    line.write_all(head.as_bytes()).await.ok()?;
    if is_head || answer.status == 204 || answer.status == 304 {
        return Some(());
    }
    match answer.delivery {
        Delivery::Stalled => {
            let _ = line.read_u8().await;
        }
        Delivery::Chunked => {
            for part in answer.body.chunks(1000) {
                line.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.ok()?;
                line.write_all(part).await.ok()?;
                line.write_all(b"\r\n").await.ok()?;
            }
            line.write_all(b"0\r\n\r\n").await.ok()?;
        }
        Delivery::Cut(at) => line.write_all(answer.body.get(..at).unwrap_or(&answer.body)).await.ok()?,
        _ => line.write_all(&answer.body).await.ok()?,
    }
    if answer.delivery == Delivery::Endless {
        let (mut sent, more) = (answer.body.len(), vec![b' '; 64 << 10]);
        while sent < ENDLESS && line.write_all(&more).await.is_ok() {
            sent += more.len();
            shared.sent_most.fetch_max(sent, Ordering::Relaxed);
        }
    }
    Some(())
}

async fn read(line: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if line.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let (method, path) = (first.next()?, first.next()?);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if line.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
