//! suppaftp's client, for plain FTP. Its own marker for "no TLS" is private and cannot be named,
//! so this one stands in: a stream that cannot exist.

use std::net::TcpStream;

use suppaftp::{FtpResult, ImplFtpStream, TlsStream, TransferStream};

/// A client of plain FTP.
pub type Client = ImplFtpStream<NoTls>;
/// A data connection of such a client.
pub type Transfer = TransferStream<NoTls>;

/// No value of this type exists.
#[derive(Debug)]
pub enum NoTls {}

impl TlsStream for NoTls {
    type InnerStream = TcpStream;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        match self {}
    }

    fn get_ref(&self) -> &TcpStream {
        match *self {}
    }

    fn mut_ref(&mut self) -> &mut TcpStream {
        match *self {}
    }
}
