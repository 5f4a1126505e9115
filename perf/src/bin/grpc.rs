//! `postroad-grpc-bench`: publishes through `postroad.v1.Messages/PublishStream` as fast as the server takes it, and counts what was
//! answered. Not a part of `postroad-bench`, which has no runtime and no codec of the server's; here the stubs are those that any
//! application would have.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures_util::stream;
use postroad_proto::v1;
use postroad_proto::v1::message::Content;
use postroad_proto::v1::messages_client::MessagesClient;
use postroad_proto::v1::publish_result::Outcome;
use tonic::transport::Endpoint;

/// Publishes by gRPC, in one stream.
#[derive(Parser)]
struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    address: String,
    /// Where to.
    #[arg(long, default_value = "api/x")]
    topic: String,
    /// Messages in all.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Messages of a request.
    #[arg(long, default_value_t = 100)]
    batch: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 256)]
    payload_bytes: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.context("no runtime").and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postroad-grpc-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let channel = Endpoint::from_shared(options.address.clone())?.connect().await.context("can't connect")?;
    let message = v1::Message {
        topic: options.topic.clone(),
        content: Some(Content::Payload(vec![b'p'; options.payload_bytes])),
        ..v1::Message::default()
    };
    let messages = vec![message; usize::try_from(options.batch)?];
    let count = options.messages / options.batch;
    let requests = (0..count).map(move |number| v1::PublishStreamRequest { number, messages: messages.clone() });
    let begin = Instant::now();
    let mut answers = MessagesClient::new(channel).publish_stream(stream::iter(requests)).await?.into_inner();
    let mut published = 0_u64;
    for expected in 0..count {
        let answer = answers.message().await?.context("the stream ended early")?;
        if answer.number != expected {
            bail!("request {} was answered in the place of {expected}", answer.number);
        }
        for result in answer.results {
            match result.outcome {
                Some(Outcome::Published(_)) => published += 1,
                other => bail!("not published: {other:?}"),
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{published} {seconds}");
    Ok(())
}
