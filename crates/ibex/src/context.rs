//! Open devices and what can be asked of them.
//!
//! Owns [`Context`], which everything made from a device keeps alive. See ibv_open_device(3), ibv_query_device(3),
//! ibv_query_port(3), ibv_query_gid_ex(3).
//!
//! # Safety
//! The `ibv_context` is valid from [`Context::from_open`] until the last clone is dropped; every object made from it holds
//! a clone.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::size_of;
use std::ptr::NonNull;
use std::sync::Arc;

use ibex_sys::{self as sys, Errno, Verbs, convention};

use crate::addr::{GidIndex, Pkey, PortNum};
use crate::attr::{DeviceAttr, Gid, GidEntry, GidType, PortAttr};
use crate::cq::{CompletionQueue, CqBuilder};
use crate::device::{Device, DeviceError};
use crate::mem::MemoryError;
use crate::pd::ProtectionDomain;
use crate::qp::QueueError;

/// The open device itself.
pub(crate) struct ContextInner {
    raw: NonNull<sys::ibv_context>,
    device: Device,
    open: bool,
}

// SAFETY: libibverbs' objects may be used from any thread (ibv_open_device(3) and the library's locking).
unsafe impl Send for ContextInner {}
// SAFETY: as above.
unsafe impl Sync for ContextInner {}

impl ContextInner {
    fn close(&mut self) -> Result<(), DeviceError> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        // SAFETY: the context is open, and nothing made from it is left, since everything holds a clone.
        let failed = unsafe { (self.device.verbs().close_device)(self.raw.as_ptr()) };
        convention::minus_one(failed).map(drop).map_err(|source| {
            crate::stats::leaked_object();
            DeviceError::Close { device: self.device.name().to_owned(), source }
        })
    }
}

impl Drop for ContextInner {
    fn drop(&mut self) {
        // A failure is counted (`leaks()`); nobody is left to tell.
        let _ = self.close();
    }
}

/// An open device. Clones share it; it is closed when the last one, and everything made from it, is gone.
#[doc(alias = "ibv_context")]
#[derive(Clone)]
pub struct Context {
    inner: Arc<ContextInner>,
}

impl Context {
    /// # Safety
    /// `raw` must have been opened from `device` and be owned by nobody else.
    pub(crate) unsafe fn from_open(device: Device, raw: NonNull<sys::ibv_context>) -> Self {
        Self { inner: Arc::new(ContextInner { raw, device, open: true }) }
    }

    /// The device this is.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// The table of functions behind it, for [`verbs::raw`](crate::verbs::raw).
    #[must_use]
    pub fn verbs(&self) -> &'static Verbs {
        self.inner.device.verbs()
    }

    /// The C object, valid while a clone of this exists.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_context {
        self.inner.raw.as_ptr()
    }

    /// Limits and capabilities.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    #[doc(alias = "ibv_query_device")]
    pub fn query_device(&self) -> Result<DeviceAttr, DeviceError> {
        let mut raw = sys::ibv_device_attr::default();
        // SAFETY: an open context and a valid place for the answer.
        let code = unsafe { (self.verbs().query_device)(self.as_raw(), &raw mut raw) };
        self.answer(code, || "attributes".to_owned())?;
        Ok(DeviceAttr::from_sys(&raw))
    }

    /// Attributes of a port; ports are numbered from 1.
    ///
    /// # Errors
    /// [`DeviceError::Query`], for instance if there is no such port.
    #[doc(alias = "ibv_query_port")]
    pub fn query_port(&self, port: PortNum) -> Result<PortAttr, DeviceError> {
        let mut raw = sys::ibv_port_attr::default();
        // SAFETY: an open context, and a place larger than the attributes that the exported function fills.
        let code = unsafe { (self.verbs().query_port)(self.as_raw(), port.0, (&raw mut raw).cast()) };
        self.answer(code, || format!("port {port}"))?;
        Ok(PortAttr::from_sys(port, &raw))
    }

    /// Attributes of all ports.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    pub fn ports(&self) -> Result<Vec<PortAttr>, DeviceError> {
        (1..=self.query_device()?.phys_port_cnt).map(|port| self.query_port(PortNum(port))).collect()
    }

    /// The links of a device inside the process: the first line names those it has, each further one tells how it reaches
    /// another process on its address (`slot 17: host (mapped, ring), 4 packets sent`). `None` for the system's devices.
    ///
    /// Processes not met before are greeted first, which takes up to a tenth of a second.
    #[must_use]
    pub fn links(&self) -> Option<Vec<String>> {
        let describe = self.verbs().describe_links?;
        // A thousand processes with a line each.
        let mut text = vec![0u8; 1 << 16];
        // SAFETY: an open context, and so many writable bytes.
        let len = unsafe { describe(self.as_raw(), text.as_mut_ptr().cast(), text.len()) };
        text.truncate(usize::try_from(len).ok()?);
        Some(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }

    /// The entries in use of a port's GID table.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    #[doc(alias = "ibv_query_gid_table")]
    pub fn gid_table(&self, port: PortNum) -> Result<Vec<GidEntry>, DeviceError> {
        if let Some(entries) = self.gid_table_at_once(port)? {
            return Ok(entries);
        }
        let len = self.query_port(port)?.gid_tbl_len;
        let mut entries = Vec::new();
        // The address vector of a queue pair has 8 bits for the index: entries beyond cannot be used.
        for index in (0..=u8::MAX).take(len as usize) {
            entries.extend(self.gid_entry(port, GidIndex(index))?);
        }
        Ok(entries)
    }

    /// The same by one call, or `None` if the library is too old for it.
    fn gid_table_at_once(&self, port: PortNum) -> Result<Option<Vec<GidEntry>>, DeviceError> {
        let Some(query) = self.verbs().query_gid_table else { return Ok(None) };
        // The call returns the tables of all ports.
        let room = self.ports()?.iter().map(|port| port.gid_tbl_len as usize).sum();
        let mut raw = vec![sys::ibv_gid_entry::default(); room];
        let size = size_of::<sys::ibv_gid_entry>();
        // SAFETY: an open context, room for so many entries, and the size of one.
        let count = unsafe { query(self.as_raw(), raw.as_mut_ptr(), room, 0, size) };
        let count = match convention::long_count(count) {
            Ok(count) => count,
            Err(Errno::EOPNOTSUPP) => return Ok(None),
            Err(source) => return Err(self.query_error(format!("GID table of port {port}"), source)),
        };
        let of_port = raw.iter().take(count).filter(|raw| raw.port_num == u32::from(port.0));
        Ok(Some(of_port.filter_map(|raw| gid_entry(port, raw)).collect()))
    }

    /// One entry of a port's GID table, or `None` if it is empty.
    ///
    /// # Errors
    /// [`DeviceError::Query`], for instance if the index is outside the table.
    #[doc(alias = "ibv_query_gid_ex")]
    pub fn gid_entry(&self, port: PortNum, index: GidIndex) -> Result<Option<GidEntry>, DeviceError> {
        let what = || format!("GID {index} of port {port}");
        let Some(query) = self.verbs().query_gid_ex else { return self.gid_entry_by_sysfs(port, index) };
        let mut raw = sys::ibv_gid_entry::default();
        // SAFETY: an open context, a valid place for the answer and its size.
        let code = unsafe {
            query(
                self.as_raw(),
                u32::from(port.0),
                u32::from(index.0),
                &raw mut raw,
                0,
                size_of::<sys::ibv_gid_entry>(),
            )
        };
        if code == libc::ENODATA {
            return Ok(None);
        }
        if code == libc::EOPNOTSUPP {
            return self.gid_entry_by_sysfs(port, index);
        }
        self.answer(code, what)?;
        Ok(gid_entry(port, &raw))
    }

    /// The same with the verbs of before rdma-core 32 and what the kernel says.
    fn gid_entry_by_sysfs(&self, port: PortNum, index: GidIndex) -> Result<Option<GidEntry>, DeviceError> {
        let mut raw = sys::ibv_gid::default();
        // SAFETY: an open context and a valid place for the answer.
        let failed =
            unsafe { (self.verbs().query_gid)(self.as_raw(), port.0, i32::from(index.0), &raw mut raw) };
        convention::minus_one(failed)
            .map_err(|source| self.query_error(format!("GID {index} of port {port}"), source))?;
        // SAFETY: all bit patterns of a GID are valid.
        let gid = Gid(unsafe { raw.raw });
        if gid.is_zero() {
            return Ok(None);
        }
        let attribute = |kind: &str| self.device().sysfs(&format!("ports/{port}/gid_attrs/{kind}/{index}"));
        let kind = match attribute("types").as_deref() {
            Some("RoCE v2") => GidType::RoceV2,
            Some("IB/RoCE v1") if self.query_port(port)?.is_ethernet() => GidType::RoceV1,
            Some("IB/RoCE v1") => GidType::Ib,
            _ => GidType::Unknown,
        };
        Ok(Some(GidEntry { gid, index, port, kind, ifindex: None, netdev: attribute("ndevs") }))
    }

    /// The GID to use on a port if the program does not choose one: RoCEv2 with a global address, then with an IPv4
    /// address, then link-local; on InfiniBand the first. Reads the table anew each time.
    ///
    /// # Errors
    /// [`DeviceError::NoGid`] if there is none, [`DeviceError::Query`].
    pub fn best_gid(&self, port: PortNum) -> Result<GidEntry, DeviceError> {
        let table = self.gid_table(port)?;
        match crate::gid::choose(&table) {
            Some(entry) => Ok(entry.clone()),
            None => Err(DeviceError::NoGid { device: self.device().name().to_owned(), port }),
        }
    }

    /// A partition key.
    ///
    /// # Errors
    /// [`DeviceError::Query`], for instance if the index is outside the table.
    #[doc(alias = "ibv_query_pkey")]
    pub fn query_pkey(&self, port: PortNum, index: u16) -> Result<Pkey, DeviceError> {
        let mut raw = 0;
        // SAFETY: an open context and a valid place for the answer.
        let failed =
            unsafe { (self.verbs().query_pkey)(self.as_raw(), port.0, i32::from(index), &raw mut raw) };
        convention::minus_one(failed)
            .map_err(|source| self.query_error(format!("partition key {index} of port {port}"), source))?;
        Ok(Pkey(u16::from_be(raw)))
    }

    /// A protection domain.
    ///
    /// # Errors
    /// [`MemoryError::AllocPd`].
    #[doc(alias = "ibv_alloc_pd")]
    pub fn alloc_pd(&self) -> Result<ProtectionDomain, MemoryError> {
        ProtectionDomain::alloc(self)
    }

    /// A completion queue with room for `entries` completions. Short for [`cq(entries).build()`](Self::cq).
    ///
    /// # Errors
    /// [`QueueError::CreateCq`].
    #[doc(alias = "ibv_create_cq")]
    pub fn create_cq(&self, entries: u32) -> Result<CompletionQueue, QueueError> {
        self.cq(entries).build()
    }

    /// A completion queue with options.
    #[must_use]
    pub fn cq(&self, entries: u32) -> CqBuilder {
        CqBuilder::new(self, entries)
    }

    /// Closes the device, if this is the last clone and nothing made from it is left; otherwise that happens later and
    /// `Ok` is returned now. Dropping does the same and counts a failure in [`leaks`](crate::leaks).
    ///
    /// # Errors
    /// [`DeviceError::Close`].
    pub fn close(self) -> Result<(), DeviceError> {
        match Arc::into_inner(self.inner) {
            Some(mut inner) => inner.close(),
            None => Ok(()),
        }
    }

    /// Turns an errno value into an error.
    fn answer(&self, code: i32, what: impl FnOnce() -> String) -> Result<(), DeviceError> {
        convention::status(code).map_err(|source| self.query_error(what(), source))
    }

    fn query_error(&self, what: String, source: Errno) -> DeviceError {
        DeviceError::Query { device: self.device().name().to_owned(), what, source }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("device", &self.device().name()).finish_non_exhaustive()
    }
}

/// An entry in this library's terms; `None` if it is empty, or beyond what the address vector of a queue pair can name.
fn gid_entry(port: PortNum, raw: &sys::ibv_gid_entry) -> Option<GidEntry> {
    // SAFETY: all bit patterns of a GID are valid.
    let gid = Gid(unsafe { raw.gid.raw });
    let index = GidIndex(u8::try_from(raw.gid_index).ok()?);
    let ifindex = (raw.ndev_ifindex != 0).then_some(raw.ndev_ifindex);
    let netdev = ifindex.and_then(interface_name);
    let kind = GidType::from_sys(raw.gid_type);
    (!gid.is_zero()).then_some(GidEntry { gid, index, port, kind, ifindex, netdev })
}

/// The name of a network interface in this process's network namespace.
fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that if_indextoname(3) asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let len = name.iter().position(|&byte| byte == 0)?;
    String::from_utf8(name[..len].to_vec()).ok()
}
