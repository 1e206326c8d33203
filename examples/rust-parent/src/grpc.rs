//! gRPC over h2: framed messages, flow control, statuses. With tonic none of this is needed.

use std::{error, fmt, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::poll_fn;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use prost::Message;
use tokio::net::TcpStream;

const MAX_MESSAGE: usize = 4 << 20; // tonic's default
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

#[rustfmt::skip]
const NAMES: [&str; 17] = [
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];

/// How a call ended, when not well.
#[derive(Debug)]
pub struct Status {
    pub code: usize,
    pub message: String,
}

impl Status {
    pub const UNKNOWN: usize = 2;
    pub const INVALID_ARGUMENT: usize = 3;
    pub const NOT_FOUND: usize = 5;
    pub const RESOURCE_EXHAUSTED: usize = 8;
    pub const UNIMPLEMENTED: usize = 12;
    pub const INTERNAL: usize = 13;
    pub const UNAVAILABLE: usize = 14;

    pub fn new(code: usize, message: impl fmt::Display) -> Self {
        Status { code, message: message.to_string() }
    }

    /// The status in the trailers, or in the headers of a call that failed at once.
    fn check(headers: &HeaderMap) -> Result<(), Status> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text("grpc-status").parse().unwrap_or(Status::UNKNOWN) {
            0 => Ok(()),
            code => Err(Status { code, message: percent_decode(text("grpc-message")) }),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", NAMES.get(self.code).unwrap_or(&"UNKNOWN"), self.message)
    }
}

impl error::Error for Status {}

impl From<h2::Error> for Status {
    fn from(problem: h2::Error) -> Self {
        Status::new(Status::UNAVAILABLE, problem)
    }
}

/// Messages to the other side: requests of a client, answers of a server.
pub struct Outgoing(pub SendStream<Bytes>);

impl Outgoing {
    /// Send a message, no faster than the other side takes it.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        let length = message.encoded_len();
        let mut data = BytesMut::with_capacity(5 + length);
        data.put_u8(0); // not compressed
        data.put_u32(length as u32);
        message.encode(&mut data).expect("the buffer has room");
        while data.has_remaining() {
            self.0.reserve_capacity(data.len());
            match poll_fn(|context| self.0.poll_capacity(context)).await {
                Some(Ok(capacity)) if capacity > 0 => {
                    let part = data.split_to(capacity.min(data.len()));
                    self.0.send_data(part.freeze(), false)?;
                }
                Some(Ok(_)) => {} // a spurious wake-up
                Some(Err(problem)) => return Err(problem.into()),
                None => return Err(Status::new(Status::UNAVAILABLE, "the other side ended the stream")),
            }
        }
        Ok(())
    }

    /// A client has no more to send.
    pub fn end(mut self) -> Result<(), Status> {
        Ok(self.0.send_data(Bytes::new(), true)?)
    }

    /// A server has answered, or failed.
    pub fn end_with(mut self, result: Result<(), Status>) -> Result<(), Status> {
        let status = result.err().unwrap_or_else(|| Status::new(0, ""));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status.code));
        let message = HeaderValue::from_str(&percent_encode(&status.message)).expect("it is plain ASCII");
        trailers.insert("grpc-message", message);
        Ok(self.0.send_trailers(trailers)?)
    }
}

/// Messages from the other side: answers to a client, requests to a server.
pub struct Incoming {
    body: RecvStream,
    buffer: BytesMut,
}

impl Incoming {
    pub fn new(body: RecvStream) -> Self {
        Incoming { body, buffer: BytesMut::new() }
    }

    /// The next message, or None when the other side has sent its last.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return M::decode(message).map(Some).map_err(|problem| Status::new(Status::INTERNAL, problem));
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data?;
                    self.body.flow_control().release_capacity(data.len())?; // or the sender stops at the window's end
                    self.buffer.extend_from_slice(&data);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::new(Status::INTERNAL, "the stream ends within a message")),
            }
        }
    }

    /// A whole message off the front of the buffer: a byte of flags, four of length, the message.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if self.buffer.len() < 5 {
            return Ok(None);
        }
        let length = (&self.buffer[1..5]).get_u32() as usize;
        if self.buffer[0] != 0 {
            return Err(Status::new(Status::UNIMPLEMENTED, "a message is compressed"));
        }
        if length > MAX_MESSAGE {
            return Err(Status::new(Status::RESOURCE_EXHAUSTED, format!("a message has {length} bytes")));
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// What a call gives back: its messages and, behind the last, its status.
pub enum Answers {
    Waiting(ResponseFuture),
    Reading(HeaderMap, Incoming),
}

impl Answers {
    /// The next answer, None at the good end, or how the call failed.
    pub async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, Status> {
        loop {
            match self {
                Answers::Waiting(response) => {
                    let (head, body) = response.await?.into_parts();
                    *self = Answers::Reading(head.headers, Incoming::new(body));
                }
                Answers::Reading(headers, incoming) => {
                    if let Some(answer) = incoming.next().await? {
                        return Ok(Some(answer));
                    }
                    let trailers = incoming.body.trailers().await?;
                    return Status::check(trailers.as_ref().unwrap_or(headers)).map(|()| None);
                }
            }
        }
    }
}

/// A connection to a server; each call is a stream of its own on it.
#[derive(Clone)]
pub struct Client {
    connection: SendRequest<Bytes>,
    address: String,
}

impl Client {
    pub async fn connect(address: &str) -> Result<Self, Box<dyn error::Error>> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (connection, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(socket)
            .await?;
        tokio::spawn(driver); // moves the bytes; what goes wrong there, the calls report
        Ok(Client { connection, address: address.to_owned() })
    }

    /// One message there, one back.
    pub async fn unary<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, Status> {
        let mut answers = self.server_stream(method, request).await?;
        let answer = answers.next().await?;
        while answers.next::<A>().await?.is_some() {} // to the status
        answer.ok_or_else(|| Status::new(Status::INTERNAL, "the call ended well, without an answer"))
    }

    /// One message there, any number back.
    pub async fn server_stream(&self, method: &str, request: &impl Message) -> Result<Answers, Status> {
        let (mut requests, answers) = self.open(method, Duration::from_secs(60)).await?;
        // A server that refuses the call resets the stream early; its status, behind the answers, says why.
        if requests.send(request).await.is_ok() {
            requests.end().ok();
        }
        Ok(answers)
    }

    /// Messages in both directions. Read the answers while sending, or both sides may wait for each other.
    pub async fn open(&self, method: &str, timeout: Duration) -> Result<(Outgoing, Answers), Status> {
        let request = Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", format!("{}m", timeout.as_millis()))
            .body(())
            .map_err(|problem| Status::new(Status::INTERNAL, problem))?;
        let mut connection = self.connection.clone().ready().await?;
        let (response, stream) = connection.send_request(request, false)?;
        Ok((Outgoing(stream), Answers::Waiting(response)))
    }
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        bytes.extend(&part.as_bytes()[if byte.is_some() { 2 } else { 0 }..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
