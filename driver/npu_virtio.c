// SPDX-License-Identifier: GPL-2.0-only
/*
 * The NPU as a virtio device, docs/spec/virtio-npu.md: virtqueues instead of rings, and
 * firmware that the device brings along.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/workqueue.h>

#include <drm/drm_managed.h>

#include "npu_drv.h"

#define NPU_VIRTIO_ID		63 /* §10.1 */
#define NPU_VIRTIO_ID_IN_QEMU	21
#define NPU_VIRTIO_MAJOR	1
#define NPU_VIRTIO_VERSION_MAJOR GENMASK(31, 16)
#define NPU_VIRTIO_VERSION_MINOR GENMASK(15, 0)

#define NPU_VIRTQ_ADMIN		0 /* §10.2 */
#define NPU_VIRTQ_EVENT		1
#define NPU_VIRTQ_USER		1 /* user queue q is virtqueue q + 1 */

#define NPU_VIRTIO_READY	BIT(0) /* §10.3 */
#define NPU_VIRTIO_FAILED	BIT(1)
#define NPU_VIRTIO_NEEDS_RESET	BIT(2)
#define NPU_VIRTIO_BOOT_ERROR	GENMASK(15, 8)

#define NPU_VIRTIO_WINDOW	1 /* §10.7 */

/* FAULT_INFO (§9.3) has no more numbers. */
#define NPU_VIRTIO_MAX_QUEUES	255U

/* Events that can come at once without waiting in the device. */
#define NPU_VIRTIO_EVENTS	16

/*
 * The first request waits for firmware (§10.4), which the device gives 10 s; a loaded
 * host may be late.
 */
#define NPU_VIRTIO_BOOT_MS	12000

/* Configuration space, §10.3. */
struct npu_virtio_config {
	__le32 magic;
	__le32 version;
	__le32 isa_version;
	__le32 arch_version;
	__le32 fw_version;
	__le32 fw_build;
	__le64 features;
	__le64 dram_size;
	__le32 array_dim;
	__le32 spad_size;
	__le32 acc_size;
	__le32 engines;
	__le32 contexts;
	__le32 user_queues;
	__le32 status;
	__le32 generation;
};

static_assert(sizeof(struct npu_virtio_config) == 72);

/* Event, §10.6. */
struct npu_virtio_event {
	__le16 type;
	__le16 lost;
	__le16 code;
	__le16 reserved0;
	__le32 info;
	__le32 reserved1;
	__le64 addr;
	__le64 reserved2;
};

static_assert(sizeof(struct npu_virtio_event) == 32);

#define NPU_VIRTIO_EVENT_FAULT		1
#define NPU_VIRTIO_EVENT_FIRMWARE	2

/* Request, §10.5: the device reads the first half and writes the second. */
struct npu_virtio_request {
	struct npu_sqe sqe;
	struct npu_cqe cqe;
};

/*
 * A virtqueue of requests. Guarded by npu_queue.lock, that of the admin queue by
 * npu_mbox.lock; vq itself changes only while the device is reset and work does not run.
 */
struct npu_virtq {
	struct npu_virtio *nv;
	u16 number; /* of the queue; 0 is admin */
	struct virtqueue *vq; /* NULL if it could not be made again after a reset */
	struct npu_virtio_request *requests; /* npu_params.credits of them */
	u32 next; /* request that is used next: those before it complete first */
	struct work_struct work; /* takes completions of a user queue */
};

struct npu_virtio {
	struct npu_device npu;
	struct virtio_device *vdev;
	struct npu_virtq *queues; /* by queue number */
	struct virtqueue *event_vq; /* as npu_virtq.vq */
	struct npu_virtio_event *events;
	struct work_struct event_work;
	struct work_struct config_work;
	struct workqueue_struct *wq; /* of all works here */
	bool was_reset; /* npu_device.lock: features and virtqueues are to be made again */
	atomic_t reported; /* the kernel's log says that firmware failed */
};

static struct npu_virtio *to_npu_virtio(struct npu_device *npu)
{
	return container_of(npu, struct npu_virtio, npu);
}

static struct npu_virtq *npu_virtq_of(struct npu_queue *q)
{
	return &to_npu_virtio(q->npu)->queues[q->number];
}

static u32 npu_virtio_status(struct npu_virtio *nv)
{
	u32 status;

	virtio_cread_le(nv->vdev, struct npu_virtio_config, status, &status);
	return status;
}

/* Says why firmware does not serve requests; that it failed, once until the next boot. */
static void npu_virtio_report(struct npu_virtio *nv)
{
	u32 status = npu_virtio_status(nv);
	u32 error = FIELD_GET(NPU_VIRTIO_BOOT_ERROR, status);

	if (status & NPU_VIRTIO_FAILED && atomic_xchg(&nv->reported, 1))
		return;
	dev_err_ratelimited(&nv->vdev->dev,
			    "firmware of the device %s: status 0x%x, error %s (%u); remedy: see what the device's own log says\n",
			    status & NPU_VIRTIO_FAILED ? "failed" : "does not answer", status,
			    npu_boot_error_name(error), error);
}

/* Virtqueues. */

static void npu_virtq_admin_callback(struct virtqueue *vq)
{
	struct npu_virtio *nv = vq->vdev->priv;

	wake_up_all(&nv->npu.mbox.wait);
}

static void npu_virtq_event_callback(struct virtqueue *vq)
{
	struct npu_virtio *nv = vq->vdev->priv;

	queue_work(nv->wq, &nv->event_work);
}

static void npu_virtq_user_callback(struct virtqueue *vq)
{
	struct npu_virtio *nv = vq->vdev->priv;

	virtqueue_disable_cb(vq);
	queue_work(nv->wq, &nv->queues[vq->index - NPU_VIRTQ_USER].work);
}

static void npu_virtq_work(struct work_struct *work)
{
	struct npu_virtq *vq = container_of(work, struct npu_virtq, work);
	struct npu_queue *q = &vq->nv->npu.queues[vq->number - 1];
	bool more;

	do {
		npu_queue_poll(q);
		spin_lock(&q->lock);
		more = vq->vq && !virtqueue_enable_cb(vq->vq) && q->attached;
		spin_unlock(&q->lock);
	} while (more);
}

static void npu_virtio_fill(struct npu_virtio *nv, struct npu_virtio_event *event)
{
	struct scatterlist sg;

	sg_init_one(&sg, event, sizeof(*event));
	/* There is room: no more buffers exist than the virtqueue has entries. */
	if (virtqueue_add_inbuf(nv->event_vq, &sg, 1, event, GFP_KERNEL))
		drm_err(&nv->npu.drm, "event virtqueue takes no buffer\n");
}

static void npu_virtio_event(struct npu_virtio *nv, const struct npu_virtio_event *event)
{
	u16 lost = le16_to_cpu(event->lost);

	if (le16_to_cpu(event->type) == NPU_VIRTIO_EVENT_FAULT)
		npu_fault(&nv->npu, le16_to_cpu(event->code), le32_to_cpu(event->info),
			  le64_to_cpu(event->addr), lost);
	else if (lost)
		npu_schedule_recovery(&nv->npu, NPU_RECOVER_RESET);
	else if (le16_to_cpu(event->type) == NPU_VIRTIO_EVENT_FIRMWARE)
		npu_health_check(&nv->npu);
	else
		drm_dbg(&nv->npu.drm, "event of type %u\n", le16_to_cpu(event->type));
}

static void npu_virtio_event_work(struct work_struct *work)
{
	struct npu_virtio *nv = container_of(work, struct npu_virtio, event_work);
	struct npu_virtio_event *event;
	unsigned int len;

	while ((event = virtqueue_get_buf(nv->event_vq, &len))) {
		if (len >= sizeof(*event))
			npu_virtio_event(nv, event);
		npu_virtio_fill(nv, event);
	}
	virtqueue_kick(nv->event_vq);
}

static void npu_virtio_config_work(struct work_struct *work)
{
	struct npu_virtio *nv = container_of(work, struct npu_virtio, config_work);
	u32 status = npu_virtio_status(nv);

	if (status & NPU_VIRTIO_FAILED) {
		npu_virtio_report(nv);
		npu_mbox_abort(&nv->npu);
	}
	if (status & NPU_VIRTIO_NEEDS_RESET)
		dev_err_ratelimited(&nv->vdev->dev,
				    "the device stopped a virtqueue; remedy: see its findings\n");
	if (status & (NPU_VIRTIO_FAILED | NPU_VIRTIO_NEEDS_RESET))
		npu_schedule_recovery(&nv->npu, NPU_RECOVER_RESET);
}

static void npu_virtio_config_changed(struct virtio_device *vdev)
{
	struct npu_virtio *nv = vdev->priv;

	queue_work(nv->wq, &nv->config_work);
}

static void npu_virtio_del_vqs(struct npu_virtio *nv)
{
	u32 i;

	nv->vdev->config->del_vqs(nv->vdev);
	nv->event_vq = NULL;
	for (i = 0; i <= nv->npu.params.queues; i++)
		nv->queues[i].vq = NULL;
}

/* Makes the virtqueues of so many user queues; -ENOENT or -EINVAL if there are fewer. */
static int npu_virtio_find_vqs(struct npu_virtio *nv, u32 queues)
{
	u32 count = queues + NPU_VIRTQ_USER + 1;
	struct virtqueue_info *infos;
	struct virtqueue **vqs;
	int ret = -ENOMEM;
	u32 i;

	infos = kcalloc(count, sizeof(*infos), GFP_KERNEL);
	vqs = kcalloc(count, sizeof(*vqs), GFP_KERNEL);
	if (!infos || !vqs)
		goto out;
	infos[NPU_VIRTQ_ADMIN] = (struct virtqueue_info){ "admin", npu_virtq_admin_callback };
	infos[NPU_VIRTQ_EVENT] = (struct virtqueue_info){ "event", npu_virtq_event_callback };
	for (i = 1; i <= queues; i++)
		infos[i + NPU_VIRTQ_USER] =
			(struct virtqueue_info){ "submission", npu_virtq_user_callback };
	ret = virtio_find_vqs(nv->vdev, count, vqs, infos, NULL);
	if (ret)
		goto out;
	nv->event_vq = vqs[NPU_VIRTQ_EVENT];
	nv->queues[0].vq = vqs[NPU_VIRTQ_ADMIN];
	for (i = 1; i <= queues; i++)
		nv->queues[i].vq = vqs[i + NPU_VIRTQ_USER];
out:
	kfree(vqs);
	kfree(infos);
	return ret;
}

/*
 * Requests that a virtqueue surely takes: each needs two descriptors if memory for an
 * indirect table is short.
 */
static u32 npu_virtio_credits(struct npu_virtio *nv)
{
	u32 credits = NPU_QUEUE_ENTRIES;
	u32 i;

	for (i = 1; i <= nv->npu.params.queues; i++)
		credits = min(credits, virtqueue_get_vring_size(nv->queues[i].vq) / 2);
	return credits;
}

/* Copies a command into the next request, and adds it. */
static int npu_virtq_add(struct npu_virtq *vq, const struct npu_sqe *sqe)
{
	struct npu_virtio_request *request = &vq->requests[vq->next];
	struct scatterlist out, in, *sgs[] = { &out, &in };

	if (!vq->vq)
		return -EIO;
	vq->next = (vq->next + 1) % vq->nv->npu.params.credits;
	request->sqe = *sqe;
	sg_init_one(&out, &request->sqe, sizeof(request->sqe));
	sg_init_one(&in, &request->cqe, sizeof(request->cqe));
	return virtqueue_add_sgs(vq->vq, sgs, 1, 1, request, GFP_ATOMIC);
}

/* Takes the next completion that is whole; the device resets if it is not. */
static bool npu_virtq_take(struct npu_virtq *vq, struct npu_cqe *cqe)
{
	struct npu_virtio_request *request;
	unsigned int len;

	request = vq->vq ? virtqueue_get_buf(vq->vq, &len) : NULL;
	if (!request)
		return false;
	if (len < sizeof(*cqe)) {
		dev_err_ratelimited(&vq->nv->vdev->dev, "queue %u: completion of %u bytes\n",
				    vq->number, len);
		npu_schedule_recovery(&vq->nv->npu, NPU_RECOVER_RESET);
		return false;
	}
	*cqe = request->cqe;
	return true;
}

/* What the core calls. */

static int npu_virtio_admin(struct npu_device *npu, const struct npu_sqe *sqe,
			    struct npu_cqe *cqe, unsigned int timeout_ms)
{
	struct npu_virtio *nv = to_npu_virtio(npu);
	struct npu_virtq *vq = &nv->queues[0];
	bool taken = false;
	int ret;

	ret = npu_virtq_add(vq, sqe);
	if (ret)
		return ret;
	virtqueue_kick(vq->vq);
	wait_event_timeout(npu->mbox.wait,
			   (taken = npu_virtq_take(vq, cqe)) || READ_ONCE(npu->mbox.dead),
			   msecs_to_jiffies(timeout_ms));
	if (!taken && READ_ONCE(npu->mbox.dead))
		return -EIO;
	if (!taken) {
		npu_virtio_report(nv);
		return -ETIMEDOUT;
	}
	if (FIELD_GET(NPU_CQE_STATUS, le16_to_cpu(cqe->status)) == NPU_STATUS_FIRMWARE_TRAP)
		npu_virtio_report(nv);
	return 0;
}

static int npu_virtio_queue_alloc(struct npu_queue *q)
{
	struct npu_virtq *vq = npu_virtq_of(q);

	vq->requests = kcalloc(q->npu->params.credits, sizeof(*vq->requests), GFP_KERNEL);
	return vq->requests ? 0 : -ENOMEM;
}

static void npu_virtio_queue_free(struct npu_queue *q)
{
	struct npu_virtq *vq = npu_virtq_of(q);

	kfree(vq->requests);
	vq->requests = NULL;
}

/* The virtqueue is empty: the queue was destroyed, or the device reset. */
static void npu_virtio_queue_empty(struct npu_queue *q, struct npu_sqe *create)
{
	npu_virtq_of(q)->next = 0;
}

static void npu_virtio_queue_push(struct npu_queue *q, const struct npu_sqe *sqe)
{
	int ret;

	ret = npu_virtq_add(npu_virtq_of(q), sqe);
	if (!ret)
		return;
	dev_err_ratelimited(q->npu->drm.dev, "queue %u takes no request: %d\n", q->number, ret);
	npu_schedule_recovery(q->npu, NPU_RECOVER_RESET);
}

static void npu_virtio_queue_kick(struct npu_queue *q)
{
	virtqueue_kick(npu_virtq_of(q)->vq);
}

static bool npu_virtio_queue_pop(struct npu_queue *q, struct npu_cqe *cqe)
{
	return npu_virtq_take(npu_virtq_of(q), cqe);
}

/* Does again what the virtio core did before probe, and makes the virtqueues again. */
static int npu_virtio_negotiate(struct npu_virtio *nv)
{
	struct virtio_device *vdev = nv->vdev;
	u32 credits = nv->npu.params.credits;
	int ret;

	npu_virtio_del_vqs(nv);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_DRIVER);
	ret = vdev->config->finalize_features(vdev);
	if (ret)
		return ret;
	virtio_add_status(vdev, VIRTIO_CONFIG_S_FEATURES_OK);
	if (!(vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_FEATURES_OK))
		return -EIO;
	ret = npu_virtio_find_vqs(nv, nv->npu.params.queues);
	if (!ret && npu_virtio_credits(nv) < credits)
		ret = -EIO;
	return ret;
}

static int npu_virtio_boot(struct npu_device *npu)
{
	struct npu_virtio *nv = to_npu_virtio(npu);
	u32 events, i;
	int ret;

	if (nv->was_reset) {
		ret = npu_virtio_negotiate(nv);
		if (ret) {
			drm_err(&npu->drm, "device does not start again: %d\n", ret);
			return ret;
		}
		nv->was_reset = false;
	}
	atomic_set(&nv->reported, 0);
	nv->queues[0].next = 0;
	events = min(NPU_VIRTIO_EVENTS, virtqueue_get_vring_size(nv->event_vq));
	for (i = 0; i < events; i++)
		npu_virtio_fill(nv, &nv->events[i]);
	virtio_device_ready(nv->vdev);
	queue_work(nv->wq, &nv->event_work); /* kicks; it may be running already */
	return 0;
}

/* Virtqueues stay for what completed before the reset. */
static int npu_virtio_reset(struct npu_device *npu)
{
	struct npu_virtio *nv = to_npu_virtio(npu);
	u32 i;

	virtio_reset_device(nv->vdev); /* waits for callbacks too */
	nv->was_reset = true;
	cancel_work_sync(&nv->config_work);
	cancel_work_sync(&nv->event_work);
	for (i = 1; i <= npu->params.queues; i++)
		cancel_work_sync(&nv->queues[i].work);
	return 0;
}

static bool npu_virtio_firmware_dead(struct npu_device *npu)
{
	return npu_virtio_status(to_npu_virtio(npu)) & NPU_VIRTIO_FAILED;
}

static void npu_virtio_stop(struct npu_device *npu)
{
	npu_virtio_reset(npu);
}

static void npu_virtio_print(struct npu_device *npu, struct drm_printer *p)
{
	drm_printf(p, "  status           0x%08x\n", npu_virtio_status(to_npu_virtio(npu)));
}

static void npu_virtio_queue_print(struct npu_queue *q, struct drm_printer *p)
{
	struct npu_virtq *vq = npu_virtq_of(q);

	drm_printf(p, "  virtqueue %u: next request %u, %u free entries\n", vq->number, vq->next,
		   vq->vq ? vq->vq->num_free : 0);
}

static const struct npu_bus_ops npu_virtio_ops = {
	.identify_timeout_ms = NPU_VIRTIO_BOOT_MS,
	.physical = true,
	.silent_errors = true,
	.reset_allocates = true,
	.boot = npu_virtio_boot,
	.reset = npu_virtio_reset,
	.firmware_dead = npu_virtio_firmware_dead,
	.stop = npu_virtio_stop,
	.print = npu_virtio_print,
	.admin = npu_virtio_admin,
	.queue_alloc = npu_virtio_queue_alloc,
	.queue_free = npu_virtio_queue_free,
	.queue_empty = npu_virtio_queue_empty,
	.queue_push = npu_virtio_queue_push,
	.queue_kick = npu_virtio_queue_kick,
	.queue_pop = npu_virtio_queue_pop,
	.queue_print = npu_virtio_queue_print,
};

/* Probe and remove. */

/* Looks whether this is an NPU at all, before anything else is done with it. */
static int npu_virtio_validate(struct virtio_device *vdev)
{
	struct device *dev = &vdev->dev;
	u32 magic, version;

	if (!vdev->config->get) {
		dev_info(dev, "no NPU: it has no configuration space\n");
		return -ENODEV;
	}
	virtio_cread_le(vdev, struct npu_virtio_config, magic, &magic);
	if (magic != NPU_MAGIC) {
		dev_info(dev, "no NPU: magic is 0x%08x, that of an NPU is 0x%08x\n", magic,
			 NPU_MAGIC);
		return -ENODEV;
	}
	virtio_cread_le(vdev, struct npu_virtio_config, version, &version);
	if (FIELD_GET(NPU_VIRTIO_VERSION_MAJOR, version) != NPU_VIRTIO_MAJOR) {
		dev_err(dev, "version of the virtio interface is %lu.%lu, needed is %u.x; remedy: a driver for version %lu\n",
			FIELD_GET(NPU_VIRTIO_VERSION_MAJOR, version),
			FIELD_GET(NPU_VIRTIO_VERSION_MINOR, version), NPU_VIRTIO_MAJOR,
			FIELD_GET(NPU_VIRTIO_VERSION_MAJOR, version));
		return -ENODEV;
	}
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(dev, "VERSION_1 is not offered; remedy: a modern virtio device\n");
		return -ENODEV;
	}
	/* Commands name guest-physical addresses (§10.5). */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	return 0;
}

static void npu_virtio_read_params(struct npu_virtio *nv)
{
	struct virtio_device *vdev = nv->vdev;
	struct npu_params *params = &nv->npu.params;

	virtio_cread_le(vdev, struct npu_virtio_config, arch_version, &params->arch_version);
	virtio_cread_le(vdev, struct npu_virtio_config, features, &params->features);
	virtio_cread_le(vdev, struct npu_virtio_config, dram_size, &params->dram_size);
	virtio_cread_le(vdev, struct npu_virtio_config, array_dim, &params->array_dim);
	virtio_cread_le(vdev, struct npu_virtio_config, spad_size, &params->spad_size);
	virtio_cread_le(vdev, struct npu_virtio_config, acc_size, &params->acc_size);
	virtio_cread_le(vdev, struct npu_virtio_config, engines, &params->engines);
	virtio_cread_le(vdev, struct npu_virtio_config, contexts, &params->contexts);
	virtio_cread_le(vdev, struct npu_virtio_config, user_queues, &params->queues);
	params->queues = min(params->queues, NPU_VIRTIO_MAX_QUEUES);
	params->vectors = 1; /* what the transport does is its own business */
}

static int npu_virtio_init_window(struct npu_virtio *nv)
{
	struct device *dev = &nv->vdev->dev;
	u64 size = nv->npu.params.dram_size;
	struct virtio_shm_region region;

	if (!virtio_get_shm_region(nv->vdev, &region, NPU_VIRTIO_WINDOW)) {
		dev_info(dev, "no window to device memory: it cannot be mapped\n");
		return npu_gem_init(&nv->npu, 0);
	}
	if (region.len < size)
		return dev_err_probe(dev, -ENODEV,
				     "DRAM_SIZE is %llu, the shared memory region has %llu bytes (§10.7)\n",
				     size, region.len);
	if (!devm_request_mem_region(dev, region.addr, region.len, DRM_NPU_NAME))
		return dev_err_probe(dev, -EBUSY, "device memory is in use\n");
	return npu_gem_init(&nv->npu, region.addr);
}

static void npu_virtio_destroy_wq(void *wq)
{
	destroy_workqueue(wq);
}

static int npu_virtio_init_queues(struct npu_virtio *nv)
{
	struct npu_device *npu = &nv->npu;
	struct npu_params *params = &npu->params;
	u32 i;
	int ret;

	nv->wq = alloc_workqueue("npu_virtio", WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
	if (!nv->wq)
		return -ENOMEM;
	ret = devm_add_action_or_reset(npu->drm.dev, npu_virtio_destroy_wq, nv->wq);
	if (ret)
		return ret;
	INIT_WORK(&nv->event_work, npu_virtio_event_work);
	INIT_WORK(&nv->config_work, npu_virtio_config_work);

	nv->events = drmm_kcalloc(&npu->drm, NPU_VIRTIO_EVENTS, sizeof(*nv->events), GFP_KERNEL);
	nv->queues = drmm_kcalloc(&npu->drm, params->queues + 1, sizeof(*nv->queues), GFP_KERNEL);
	if (!nv->events || !nv->queues)
		return -ENOMEM;
	for (i = 0; i <= params->queues; i++) {
		nv->queues[i].nv = nv;
		nv->queues[i].number = i;
		INIT_WORK(&nv->queues[i].work, npu_virtq_work);
	}

	/* The monitor may offer fewer virtqueues than the card has queues; none tells how many. */
	for (;;) {
		ret = npu_virtio_find_vqs(nv, params->queues);
		if ((ret != -ENOENT && ret != -EINVAL) || params->queues < 2)
			break;
		params->queues--;
	}
	if (ret)
		return dev_err_probe(npu->drm.dev, ret,
				     "virtqueues; remedy: offer at least 3 of them\n");
	params->credits = npu_virtio_credits(nv);
	if (!params->credits)
		return dev_err_probe(npu->drm.dev, -ENODEV,
				     "virtqueues hold no request; remedy: give them 2 entries or more\n");

	nv->queues[0].requests = drmm_kcalloc(&npu->drm, params->credits,
					      sizeof(*nv->queues[0].requests), GFP_KERNEL);
	return nv->queues[0].requests ? 0 : -ENOMEM;
}

static int npu_virtio_probe(struct virtio_device *vdev)
{
	struct device *dev = &vdev->dev;
	struct npu_virtio *nv;
	struct npu_device *npu;
	int ret;

	npu = npu_alloc(dev, sizeof(*nv), &npu_virtio_ops);
	if (IS_ERR(npu))
		return PTR_ERR(npu);
	nv = to_npu_virtio(npu);
	nv->vdev = vdev;
	vdev->priv = nv;

	/*
	 * Memory is allocated for this device, not for its parent, which may be behind an
	 * IOMMU: then bus addresses are guest-physical ones, as §10.5 wants them.
	 */
	ret = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return dev_err_probe(dev, ret, "no 64-bit DMA\n");
	npu_virtio_read_params(nv);
	ret = npu_check_arch(npu);
	if (ret)
		return ret;
	ret = npu_virtio_init_window(nv);
	if (ret)
		return ret;
	ret = npu_virtio_init_queues(nv);
	if (!ret)
		ret = npu_init(npu);
	if (!ret)
		ret = npu_start(npu);
	if (ret)
		vdev->config->del_vqs(vdev);
	return ret;
}

static void npu_virtio_remove(struct virtio_device *vdev)
{
	struct npu_virtio *nv = vdev->priv;

	npu_remove(&nv->npu);
	cancel_work_sync(&nv->config_work);
	npu_virtio_del_vqs(nv);
}

#ifdef CONFIG_PM_SLEEP
static int npu_virtio_freeze(struct virtio_device *vdev)
{
	struct npu_virtio *nv = vdev->priv;
	int ret;

	ret = npu_suspend(&nv->npu);
	if (ret)
		return ret;
	cancel_work_sync(&nv->config_work);
	npu_virtio_del_vqs(nv);
	return 0;
}

/* The virtio core has reset the device and negotiated its features again. */
static int npu_virtio_restore(struct virtio_device *vdev)
{
	struct npu_virtio *nv = vdev->priv;
	int ret;

	ret = npu_virtio_find_vqs(nv, nv->npu.params.queues);
	if (ret)
		return ret;
	nv->was_reset = false;
	return npu_resume(&nv->npu);
}
#endif

static const struct virtio_device_id npu_virtio_ids[] = {
	{ NPU_VIRTIO_ID, VIRTIO_DEV_ANY_ID },
	{ NPU_VIRTIO_ID_IN_QEMU, VIRTIO_DEV_ANY_ID },
	{ }
};
MODULE_DEVICE_TABLE(virtio, npu_virtio_ids);

static struct virtio_driver npu_virtio_driver = {
	.driver.name = DRM_NPU_NAME,
	.id_table = npu_virtio_ids,
	.validate = npu_virtio_validate,
	.probe = npu_virtio_probe,
	.remove = npu_virtio_remove,
	.config_changed = npu_virtio_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = npu_virtio_freeze,
	.restore = npu_virtio_restore,
#endif
};

int npu_virtio_register(void)
{
	return register_virtio_driver(&npu_virtio_driver);
}

void npu_virtio_unregister(void)
{
	unregister_virtio_driver(&npu_virtio_driver);
}
