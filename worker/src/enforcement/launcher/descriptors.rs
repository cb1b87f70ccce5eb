//! Open files, handed from one process to another over a Unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most that are handed over at once.
pub const MOST: usize = 3;

/// The byte that carries them: the kernel sends none without data.
const CARRIER: u8 = b'>';

/// Hands these over, before whatever is written next.
pub fn send(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes exactly so many; they do not outlive a program that is executed. `None` if the other side closed the socket
/// instead.
pub fn receive<const COUNT: usize>(socket: impl AsFd) -> io::Result<Option<[OwnedFd; COUNT]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut carrier = [0];
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut carrier)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let count = descriptors.len();
    descriptors.try_into().map(Some).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{count} descriptors came, and {COUNT} were expected"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_handed_over_works_on_the_other_side_and_what_follows_is_read_after_it() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(&ours, &[write.as_fd()]).unwrap();
        drop(write);
        ours.write_all(b"next").unwrap();
        let [handed] = receive(&theirs).unwrap().unwrap();
        std::fs::File::from(handed).write_all(b"through").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        let mut next = [0; 4];
        theirs.read_exact(&mut next).unwrap();
        assert_eq!((text.as_str(), &next), ("through", b"next"));
    }

    #[test]
    fn a_closed_socket_and_another_number_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&ours, &[ours.as_fd(), ours.as_fd()]).unwrap();
        let error = receive::<3>(&theirs).unwrap_err();
        assert!(error.to_string().contains("2 descriptors came, and 3"), "{error}");
        drop(ours);
        assert!(receive::<1>(&theirs).unwrap().is_none());
    }
}
