// SPDX-License-Identifier: GPL-2.0-only
/*
 * Temperatures of a device with RAS (§12.4) for hwmon. Who looks neither wakes the device nor
 * keeps it awake: while it sleeps everything but labels is ENODATA.
 */

#include <linux/hwmon.h>

#include <drm/drm_drv.h>

#include "npu_drv.h"

#if IS_REACHABLE(CONFIG_HWMON)

enum {
	NPU_HWMON_CARD,
	NPU_HWMON_AMBIENT,
};

static umode_t npu_hwmon_is_visible(const void *data, enum hwmon_sensor_types type, u32 attr,
				    int channel)
{
	return 0444;
}

/* Finds the attribute's value among those of telemetry. */
static int npu_hwmon_value(const s64 *v, u32 attr, int channel, long *value)
{
	switch (attr) {
	case hwmon_temp_input:
		*value = v[channel == NPU_HWMON_CARD ? NPU_SENSOR_TEMPERATURE : NPU_SENSOR_AMBIENT];
		return 0;
	case hwmon_temp_max:
		*value = v[NPU_SENSOR_THERMAL_1];
		return 0;
	case hwmon_temp_max_hyst:
		*value = v[NPU_SENSOR_THERMAL_1] - NPU_THERMAL_HYSTERESIS;
		return 0;
	case hwmon_temp_crit:
		*value = v[NPU_SENSOR_THERMAL_CRITICAL];
		return 0;
	case hwmon_temp_crit_hyst:
		*value = v[NPU_SENSOR_THERMAL_CRITICAL] - NPU_THERMAL_HYSTERESIS;
		return 0;
	case hwmon_temp_max_alarm:
		*value = v[NPU_SENSOR_THROTTLE] > 0;
		return 0;
	case hwmon_temp_crit_alarm:
		*value = v[NPU_SENSOR_THROTTLE] >= NPU_THERMAL_LEVEL_CRITICAL;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int npu_hwmon_read(struct device *dev, enum hwmon_sensor_types type, u32 attr, int channel,
			  long *value)
{
	struct npu_device *npu = dev_get_drvdata(dev);
	s64 values[NPU_SENSOR_COUNT];
	int ret, idx;

	if (!npu_enter(npu, &idx))
		return -ENODEV;
	ret = npu_hold(npu);
	if (!ret) {
		ret = npu_telemetry_read(npu, values);
		npu_let_go(npu);
	}
	if (!ret)
		ret = npu_hwmon_value(values, attr, channel, value);
	drm_dev_exit(idx);
	return ret;
}

static int npu_hwmon_read_string(struct device *dev, enum hwmon_sensor_types type, u32 attr,
				 int channel, const char **text)
{
	*text = channel == NPU_HWMON_CARD ? "npu" : "ambient";
	return 0;
}

static const struct hwmon_ops npu_hwmon_ops = {
	.is_visible = npu_hwmon_is_visible,
	.read = npu_hwmon_read,
	.read_string = npu_hwmon_read_string,
};

static const struct hwmon_channel_info * const npu_hwmon_channels[] = {
	HWMON_CHANNEL_INFO(temp,
			   HWMON_T_INPUT | HWMON_T_LABEL | HWMON_T_MAX | HWMON_T_MAX_HYST |
			   HWMON_T_CRIT | HWMON_T_CRIT_HYST | HWMON_T_MAX_ALARM |
			   HWMON_T_CRIT_ALARM,
			   HWMON_T_INPUT | HWMON_T_LABEL),
	NULL
};

static const struct hwmon_chip_info npu_hwmon_chip = {
	.ops = &npu_hwmon_ops,
	.info = npu_hwmon_channels,
};

/* npu_hwmon_init registers the sensors, which go with the driver; the device works without. */
void npu_hwmon_init(struct npu_device *npu)
{
	struct device *dev;

	if (!npu_has_ras(npu))
		return;
	dev = devm_hwmon_device_register_with_info(npu->drm.dev, DRM_NPU_NAME, npu,
						   &npu_hwmon_chip, NULL);
	if (IS_ERR(dev)) {
		drm_warn(&npu->drm, "no temperatures for hwmon: %pe\n", dev);
		return;
	}
	WRITE_ONCE(npu->health.hwmon, dev);
}

/* npu_hwmon_throttled tells those who poll an alarm that it may have changed. */
void npu_hwmon_throttled(struct npu_device *npu)
{
	struct device *dev = READ_ONCE(npu->health.hwmon);

	if (!dev)
		return;
	hwmon_notify_event(dev, hwmon_temp, hwmon_temp_max_alarm, NPU_HWMON_CARD);
	hwmon_notify_event(dev, hwmon_temp, hwmon_temp_crit_alarm, NPU_HWMON_CARD);
}

#endif
