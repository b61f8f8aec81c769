/* Streams, events and graphs. Queued work runs as late as it may: when a call waits for it. */
#include "tests/shim/memory.h"
#include "tests/shim/runtime.h"
#include "tests/shim/shim.h"

#include <chrono>
#include <deque>
#include <set>
#include <vector>

namespace shim {
cudaError_t remember(cudaError_t error);
}

using work = std::function<void()>;

struct CUgraph_st {
    std::vector<work> nodes;
};
struct CUgraphExec_st {
    std::vector<work> nodes;
};
struct CUstream_st {
    std::deque<work> queue;
    CUgraph_st *capture = nullptr;
    bool blocking = true; /* waits for the default stream and is waited for by it */
};
struct CUevent_st {
    CUstream_st *stream = nullptr;
    CUgraph_st *capture = nullptr; /* it was recorded in a capture */
    uint64_t recorded = 0, done = 0;
    double seconds = 0;
};

namespace shim {
namespace {

CUstream_st default_stream;
std::set<CUstream_st *> streams;

CUstream_st *stream_of(cudaStream_t stream) {
    if (!stream) return &default_stream;
    if (!streams.count(stream)) fail("a stream that does not exist");
    return stream;
}

void run_front(CUstream_st *s) {
    work w = std::move(s->queue.front());
    s->queue.pop_front();
    arena_open();
    w();
    arena_close();
}

void drain_queue(CUstream_st *s) {
    if (s->queue.empty()) return;
    arena_open(); /* once for all that is queued */
    while (!s->queue.empty()) run_front(s);
    arena_close();
}

double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

cudaError_t waited() {
    return device_fault() ? remember(device_fault()) : cudaSuccess;
}

bool any_capture() {
    for (CUstream_st *s : streams)
        if (s->capture) return true;
    return false;
}

} // namespace

/* The default stream and the blocking ones wait for each other's earlier work. */
static void order_with_default(CUstream_st *s) {
    if (s == &default_stream) {
        for (CUstream_st *other : streams)
            if (other->blocking) drain_queue(other);
    } else if (s->blocking) {
        drain_queue(&default_stream);
    }
}

bool capturing(cudaStream_t stream) {
    return stream_of(stream)->capture != nullptr;
}

void enqueue(cudaStream_t stream, work w) {
    CUstream_st *s = stream_of(stream);
    if (s == &default_stream && any_capture()) fail("work on the default stream while another is captured");
    if (s->capture) {
        s->capture->nodes.push_back(std::move(w));
        return;
    }
    order_with_default(s);
    s->queue.push_back(std::move(w));
}

void drain(cudaStream_t stream) {
    CUstream_st *s = stream_of(stream);
    order_with_default(s);
    drain_queue(s);
}

} // namespace shim

using namespace shim;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    *out = new CUstream_st;
    (*out)->blocking = !(flags & cudaStreamNonBlocking);
    streams.insert(*out);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *out) {
    return cudaStreamCreateWithFlags(out, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    drain(stream);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (capturing(stream)) return remember(cudaErrorStreamCaptureUnsupported);
    drain(stream);
    return waited();
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    if (device_fault()) return waited();
    return stream_of(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
    if (any_capture()) return remember(cudaErrorStreamCaptureUnsupported);
    drain_queue(&default_stream);
    for (CUstream_st *s : streams) drain_queue(s);
    return waited();
}

static void run_until(cudaEvent_t event, uint64_t ticket) {
    while (event->done < ticket) {
        if (event->stream->queue.empty()) fail("waits for an event that was lost");
        run_front(event->stream);
    }
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
    *out = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) {
    return cudaEventCreateWithFlags(out, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (event->recorded > event->done) run_until(event, event->recorded);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (device_fault()) return waited();
    CUstream_st *s = stream_of(stream);
    event->capture = s->capture;
    if (s->capture) return cudaSuccess; /* an edge of the graph, whose nodes run in the order they came */
    event->stream = s;
    uint64_t ticket = ++event->recorded;
    enqueue(stream, [event, ticket] {
        event->done = ticket;
        event->seconds = now_seconds();
    });
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    CUstream_st *s = stream_of(stream);
    if (event->capture) {
        if (s->capture && s->capture != event->capture) return remember(cudaErrorStreamCaptureInvalidated);
        s->capture = event->capture; /* joins the capture */
        return cudaSuccess;
    }
    if (s->capture) fail("a captured stream waits for an event from outside its capture");
    uint64_t ticket = event->recorded;
    if (event->done < ticket) enqueue(stream, [event, ticket] { run_until(event, ticket); });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    run_until(event, event->recorded);
    return waited();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (device_fault()) return waited();
    return event->done == event->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    if (from->done != from->recorded || to->done != to->recorded) return remember(cudaErrorNotReady);
    *ms = static_cast<float>((to->seconds - from->seconds) * 1e3);
    return waited();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    CUstream_st *s = stream_of(stream);
    if (s == &default_stream || s->capture) return remember(cudaErrorStreamCaptureUnsupported);
    s->capture = new CUgraph_st;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    CUgraph_st *graph = stream_of(stream)->capture;
    *out = graph;
    if (!graph) return remember(cudaErrorStreamCaptureInvalidated);
    for (CUstream_st *s : streams)
        if (s->capture == graph) s->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *out) {
    *out = capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    *out = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    if (device_fault()) return waited();
    for (const work &w : exec->nodes) enqueue(stream, w);
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void *, size_t *n) {
    *n = graph->nodes.size();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    cudaDeviceSynchronize();
    delete exec;
    return cudaSuccess;
}
