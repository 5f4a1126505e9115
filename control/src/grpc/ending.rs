//! Streams of services that we did not write (health, reflection): they know of no end but their caller's, so this is told them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Frame;
use tonic::Status;

use crate::problem::Problem;

/// An answer that ends with a status once `end` resolves, if it has not ended before.
pub(super) fn ending(answer: Response, end: impl Future<Output = Problem> + Send + 'static) -> Response {
    answer.map(|body| Body::new(Ending { body, end: Some(Box::pin(end)) }))
}

struct Ending {
    body: Body,
    /// `None` once it has resolved.
    end: Option<Pin<Box<dyn Future<Output = Problem> + Send>>>,
}

impl hyper::body::Body for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    /// What there is to say is said before the end.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let end = end.as_mut().poll(context);
        let said = Pin::new(&mut self.body).poll_frame(context);
        if said.is_ready() {
            return said;
        }
        let problem = ready!(end);
        self.end = None;
        let mut trailers = HeaderMap::new();
        let told = Status::from(problem).add_header(&mut trailers);
        Poll::Ready(told.is_ok().then_some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.body.is_end_stream()
    }
}
