// SPDX-License-Identifier: GPL-2.0-only
/*
 * npu_probe drives the paravirtual NPU (docs/spec/virtio-npu.md) from a kernel, with Linux's own virtqueues and
 * nothing of driver/: it reads the configuration space, boots, makes a context and a queue, and runs NOPs, one at a
 * time and many at once. What it found is one line of the log.
 */
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define MAGIC		0x4555504e
#define ID		63
#define ENTRY		64
#define COMPLETION	32
#define CREATE_CONTEXT	0x10
#define CREATE_QUEUE	0x20
#define NOP		0x01
#define MANY		60

static bool split;
module_param(split, bool, 0444);
MODULE_PARM_DESC(split, "do not accept packed virtqueues");

enum { ADMIN, EVENT, USER, QUEUES };

struct request {
	u8 entry[ENTRY];
	u8 answer[COMPLETION];
};

struct npu_probe {
	struct virtqueue *vqs[QUEUES];
	struct completion used;
};

static void npu_probe_used(struct virtqueue *vq)
{
	struct npu_probe *p = vq->vdev->priv;

	complete(&p->used);
}

static int npu_probe_add(struct virtqueue *vq, struct request *r)
{
	struct scatterlist in, out, *sgs[] = { &out, &in };

	memset(r->answer, 0xff, COMPLETION);
	sg_init_one(&out, r->entry, ENTRY);
	sg_init_one(&in, r->answer, COMPLETION);
	return virtqueue_add_sgs(vq, sgs, 1, 1, r, GFP_KERNEL);
}

/* The next request that the device has used, or NULL after five seconds. */
static struct request *npu_probe_wait(struct npu_probe *p, struct virtqueue *vq)
{
	unsigned int len;
	struct request *r;

	for (;;) {
		r = virtqueue_get_buf(vq, &len);
		if (r)
			return len == COMPLETION ? r : NULL;
		if (virtqueue_enable_cb(vq) && !wait_for_completion_timeout(&p->used, 5 * HZ))
			return NULL;
	}
}

/* Executes a command. Returns its status code, or -EIO. */
static int npu_probe_do(struct npu_probe *p, struct virtqueue *vq, struct request *r)
{
	if (npu_probe_add(vq, r) || !virtqueue_kick(vq) || npu_probe_wait(p, vq) != r)
		return -EIO;
	return (r->answer[0x1e] | r->answer[0x1f] << 8) >> 1;
}

static int npu_probe_run(struct npu_probe *p, struct request *r)
{
	int i, err;

	memset(r, 0, MANY * sizeof(*r));
	r->entry[0] = CREATE_CONTEXT;
	err = npu_probe_do(p, p->vqs[ADMIN], r);
	if (err)
		return err;
	r->entry[0] = CREATE_QUEUE;
	r->entry[0x18] = 1;
	r->entry[0x20] = r->answer[0];
	err = npu_probe_do(p, p->vqs[ADMIN], r);
	if (err)
		return err;
	memset(r->entry, 0, ENTRY);
	r->entry[0] = NOP;
	for (i = 0; i < 1000; i++) {
		err = npu_probe_do(p, p->vqs[USER], r);
		if (err)
			return err;
	}
	for (i = 0; i < MANY; i++) {
		r[i].entry[0] = NOP;
		r[i].entry[2] = i;
		if (npu_probe_add(p->vqs[USER], &r[i]))
			return -ENOSPC;
	}
	virtqueue_kick(p->vqs[USER]);
	for (i = 0; i < MANY; i++)
		if (npu_probe_wait(p, p->vqs[USER]) != &r[i] || r[i].answer[0x1c] != i || r[i].answer[0x1e])
			return -EIO;
	return 0;
}

static int npu_probe_validate(struct virtio_device *vdev)
{
	if (split)
		__virtio_clear_bit(vdev, VIRTIO_F_RING_PACKED);
	return 0;
}

static int npu_probe_probe(struct virtio_device *vdev)
{
	struct virtqueue_info info[QUEUES] = {
		{ "admin", npu_probe_used }, { "event", npu_probe_used }, { "user", npu_probe_used },
	};
	struct npu_probe *p;
	struct request *r;
	u32 magic = 0;
	int err;

	virtio_cread_bytes(vdev, 0, &magic, sizeof(magic));
	if (magic != MAGIC)
		return -ENODEV;
	p = kzalloc(sizeof(*p), GFP_KERNEL);
	r = kcalloc(MANY, sizeof(*r), GFP_KERNEL);
	if (!p || !r) {
		err = -ENOMEM;
		goto free;
	}
	init_completion(&p->used);
	vdev->priv = p;
	err = virtio_find_vqs(vdev, QUEUES, p->vqs, info, NULL);
	if (err)
		goto free;
	virtio_device_ready(vdev);
	err = npu_probe_run(p, r);
	dev_info(&vdev->dev, "npu_probe: result %d, packed %d, indirect %d, event index %d\n", err,
		 virtio_has_feature(vdev, VIRTIO_F_RING_PACKED), virtio_has_feature(vdev, VIRTIO_RING_F_INDIRECT_DESC),
		 virtio_has_feature(vdev, VIRTIO_RING_F_EVENT_IDX));
	kfree(r);
	return 0;
free:
	kfree(r);
	kfree(p);
	return err;
}

static void npu_probe_remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	kfree(vdev->priv);
}

static const struct virtio_device_id npu_probe_ids[] = { { ID, VIRTIO_DEV_ANY_ID }, { } };

static struct virtio_driver npu_probe_driver = {
	.driver.name = "npu_probe",
	.id_table = npu_probe_ids,
	.validate = npu_probe_validate,
	.probe = npu_probe_probe,
	.remove = npu_probe_remove,
};
module_virtio_driver(npu_probe_driver);

MODULE_DESCRIPTION("Test of the paravirtual NPU with Linux's virtqueues");
MODULE_LICENSE("GPL");
