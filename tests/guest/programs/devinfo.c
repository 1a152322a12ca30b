/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devinfo prints what the driver says of the device, as one JSON object.
 *
 * usage: devinfo [/dev/accel/accelN]
 */
#include <stdio.h>
#include <string.h>

#include "npu.h"

int main(int argc, char **argv)
{
	struct drm_npu_counters zero = { 0 }, counters;
	struct drm_npu_device_info info;
	struct npu_version version;
	int fd, ret;

	if (argc > 2) {
		fprintf(stderr, "usage: devinfo [/dev/accel/accelN]\n");
		return 2;
	}
	fd = argc == 2 ? npu_open_path(argv[1]) : npu_open();
	if (fd < 0) {
		fprintf(stderr, "devinfo: no device of driver %s %d.x: %s\n", DRM_NPU_NAME,
			DRM_NPU_VERSION_MAJOR, strerror(-fd));
		return 1;
	}
	ret = npu_get_version(fd, &version);
	if (!ret)
		ret = npu_query(fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info));
	if (!ret)
		ret = npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &counters, sizeof(counters));
	if (ret) {
		fprintf(stderr, "devinfo: query: %s\n", strerror(-ret));
		return 1;
	}
	printf("{");
	npu_print_device(&version, &info);
	printf(", \"counters\": ");
	npu_print_counters(&zero, &counters);
	printf("}\n");
	return 0;
}
