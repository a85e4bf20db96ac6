//! Requests as they come in, with the bytes they were read from.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::domain::Invalid;

/// A message and the bytes it was read from, so that keeping it costs a copy and not an encoding.
#[derive(Clone, Debug)]
pub struct Received<M> {
    /// The message, or why it cannot be read.
    pub message: Result<M, Invalid>,
    /// Its bytes as they were sent.
    pub bytes: Bytes,
}

/// Bytes a call's buffers have at first; larger messages make them grow. Below 1 KiB the system's
/// allocator hands out what the last call gave back, without tidying up first.
const BUFFER: usize = 1_000;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, 32 << 10)
}

/// Reads `D` and writes `E`, as the servers of `exeat.v1` do.
#[derive(Debug)]
pub struct Codec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for Codec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> tonic::codec::Codec for Codec<E, D>
where
    E: Message + 'static,
    D: Message + Default + 'static,
{
    type Encode = E;
    type Decode = Received<D>;
    type Encoder = ProstEncoder<E>;
    type Decoder = Reader<D>;

    fn encoder(&mut self) -> ProstEncoder<E> {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Reader<D> {
        Reader(PhantomData)
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct Reader<D>(PhantomData<D>);

impl<D: Message + Default> Decoder for Reader<D> {
    type Item = Received<D>;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Received<D>>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        let message = D::decode(&*bytes).map_err(|error| {
            Invalid::new(
                "",
                format!("cannot be read: {error}"),
                "send a message of exeat.v1",
            )
        });
        Ok(Some(Received { message, bytes }))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
