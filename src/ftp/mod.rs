//! FTP as this service speaks it (RFC 959, 2428, 3659) on top of suppaftp: sessions, transfers,
//! publishing. Runs on a worker's thread only; every wait names its phase in the pulse cell and
//! ends by the daemon's interrupt or the fence. It decides nothing about local files.

mod active;
mod conflict;
mod dial;
mod direct;
mod error;
mod hash;
mod listing;
mod login;
mod marker;
mod pace;
mod passive;
mod probe;
mod publish;
mod pump;
mod quirks;
mod receive;
mod replace;
mod replies;
mod resume;
mod session;
mod spelling;
mod strays;
mod stream;
mod tickets;
mod times;
mod tls;
mod transfer;
mod verify;

pub use direct::{Settled, settle};
pub use error::Trouble;
pub use hash::Hashing;
pub use listing::{Entry, Kind};
pub use pace::Limit;
pub use probe::{Features, Listing};
pub use publish::{Landed, Placed, Resolved, landed, published, resolve, take_away};
pub use quirks::{Quirk, Quirks};
pub use receive::receive;
pub use resume::{leave_all, resumable, take_up};
pub use session::{Session, Setup};
pub use transfer::{REASON_BOUND, send};
