//! An error number of the system. Owns [`Errno`], its names and its text.
//!
//! Man page: `errno(3)`.

use core::ffi::c_int;
use core::fmt;

/// A positive error number, as in `errno`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Errno(pub c_int);

/// Declares the named values.
macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`, see `errno(3)`.")]
                pub const $name: Self = Self(libc::$name);
            )*

            /// The name of this number, if it is one that RDMA calls return.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$name => Some(stringify!($name)), )*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST ENODEV EINVAL ENFILE EMFILE ENOTTY
    ENOSPC EPIPE EDOM ERANGE ENOSYS ENODATA ETIME EPROTO EOVERFLOW EMSGSIZE ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED
}

impl Errno {
    /// The calling thread's `errno`; EIO if it is 0, since whoever asks knows that something failed.
    #[cold]
    pub fn last() -> Self {
        match Self::raw() {
            0 => Self::EIO,
            errno => Self(errno),
        }
    }

    /// The calling thread's `errno`, 0 included.
    pub(super) fn raw() -> c_int {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "Invalid argument (os error 22)": the system's own words and the number.
        let text = std::io::Error::from(*self).to_string();
        match self.name() {
            Some(name) => write!(f, "{} ({name})", text.split(" (os error").next().unwrap_or(&text)),
            None => f.write_str(&text),
        }
    }
}

impl core::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}
